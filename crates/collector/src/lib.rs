//! A live KVM host to a capture
