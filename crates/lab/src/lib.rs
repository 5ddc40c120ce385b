//! Real KVM hosts to try mmuscope on
