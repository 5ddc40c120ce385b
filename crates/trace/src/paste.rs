//! SPTE values out of pasted text: dmesg dumps, trace lines, debugger output.
