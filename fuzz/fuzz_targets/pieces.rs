#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mmuscope_fuzzing::pieces(data));
