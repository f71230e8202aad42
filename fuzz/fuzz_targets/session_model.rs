#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flamenco_webupdates_fuzz::session_model(data));
