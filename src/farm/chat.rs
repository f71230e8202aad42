//! Chat messages.

use super::payload::{ChatMessage, Payload};
use super::subscription::Refusal;

/// The acknowledgement of a published message.
pub const CHAT_SENT: &str = "message sent successfully.";

/// Parses the argument of `/chat`, the JSON text of `{name, text}`. The object is published
/// unchanged.
///
/// # Errors
///
/// The argument is not such an object.
pub fn parse(argument: &str) -> Result<Payload<ChatMessage>, Refusal> {
    Ok(Payload::parse(argument)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_goes_out_untouched() {
        let argument = r#"{ "text":"half a \ud83c clap\u0000", "mood": [1.0e0], "name":"Zoë" }"#;
        let message = parse(argument).unwrap();
        assert_eq!(&*message.json, argument);
        assert_eq!(message.fields.name, "Zoë");
    }

    #[test]
    fn the_wrong_shape_is_reported_and_not_quoted() {
        for (argument, text) in [
            ("\"secret\"", "invalid request: the value is a string where an object is due"),
            (r#"{"name":"secret"}"#, "invalid request: text is missing"),
            (r#"{"text":"secret"}"#, "invalid request: name is missing"),
            (r#"{"name":"secret","text":["secret"]}"#, "invalid request: text is an array where a string is due"),
            (r#"{"name":null,"text":""}"#, "invalid request: name is null where a string is due"),
            (r#"{"name":"a","text":"b","text":"c"}"#, "invalid request: text is given more than once"),
        ] {
            assert_eq!(parse(argument).unwrap_err().to_string(), text, "{argument}");
        }
        let deep = format!(r#"{{"name":"a","text":"b","x":{}1{}}}"#, "[".repeat(64), "]".repeat(64));
        assert_eq!(parse(&deep).unwrap_err().to_string(), "invalid request: the value is nested deeper than 64 levels");
    }
}
