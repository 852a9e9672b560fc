#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| antiphon_session_fuzz::session(data));
