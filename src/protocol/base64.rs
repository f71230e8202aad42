//! Base64 (RFC 4648, section 4) in `b4…` packets. Padding is optional, and unused bits are ignored.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Appends the padded base64 form of `data`.
pub(super) fn encode(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(LENIENT.encode(data).as_bytes());
}

/// Decodes `text`, with or without padding. Returns `None` if it is not base64.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    // Padding that is there must be whole.
    if text.ends_with('=') && !text.len().is_multiple_of(4) {
        return None;
    }
    LENIENT.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    #[test]
    fn vectors_of_the_specification() {
        for (data, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut encoded = Vec::new();
            encode(data.as_bytes(), &mut encoded);
            assert_eq!(encoded, text.as_bytes());
            assert_eq!(decode(text).as_deref(), Some(data.as_bytes()));
            assert_eq!(decode(text.trim_end_matches('=')).as_deref(), Some(data.as_bytes()));
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let data: Vec<u8> = (0..=255).collect();
        let mut encoded = Vec::new();
        encode(&data, &mut encoded);
        assert_eq!(decode(std::str::from_utf8(&encoded).unwrap()), Some(data));
        assert_eq!(decode("*"), None);
    }
}
