//! A configuration file with every option, from the table that `--help` has.

use std::{collections::BTreeMap, fmt::Write};

use clap::{Arg, Command};

/// Characters of a line of explanation.
const WIDTH: usize = 96;

/// Returns a configuration file in which every option of `serve` is commented out, with its default
/// or, where it has none, the kind of its value.
pub fn example(serve: &Command) -> String {
    let mut example = "# Options of flamenco-webupdates serve. A line without its first # sets the option.\n\
        # The command line and the environment (WEBUPDATES_...) take precedence over this file.\n"
        .to_owned();
    let mut headings = Vec::new();
    let mut groups: BTreeMap<Option<&str>, Vec<&Arg>> = BTreeMap::new();
    for argument in serve.get_arguments().filter(|argument| argument.get_long().is_some_and(|long| long != "config")) {
        let heading = argument.get_help_heading();
        if !headings.contains(&heading) {
            headings.push(heading);
        }
        groups.entry(heading).or_default().push(argument);
    }
    for heading in headings {
        if let Some(heading) = heading {
            let _ = write!(example, "\n# ---- {heading} ----\n");
        }
        groups.remove(&heading).into_iter().flatten().for_each(|argument| option(&mut example, argument));
    }
    example
}

fn option(example: &mut String, argument: &Arg) {
    let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    example.push('\n');
    for line in help.lines().flat_map(wrapped) {
        let _ = writeln!(example, "# {line}");
    }
    let _ = writeln!(example, "#{} = {}", argument.get_long().unwrap_or_default(), value(argument));
}

fn value(argument: &Arg) -> String {
    let delimiter = argument.get_value_delimiter();
    let defaults = argument.get_default_values().iter().map(|value| value.to_string_lossy());
    if let Some(delimiter) = delimiter {
        let lists: Vec<_> = defaults.collect();
        let values: Vec<_> = lists.iter().flat_map(|list| list.split(delimiter)).map(literal).collect();
        return format!("[{}]", values.join(", "));
    }
    // A default that the help hides depends on the machine.
    let mut shown = defaults.filter(|_| !argument.is_hide_default_value_set());
    match shown.next() {
        Some(default) => literal(&default),
        None if !argument.get_action().takes_values() => "false".to_owned(),
        None => {
            let names = argument.get_value_names().unwrap_or_default();
            format!("\"<{}>\"", names.first().map_or("VALUE", |name| name.as_str()))
        }
    }
}

/// Returns a TOML literal. The strings of JSON are strings of TOML.
fn literal(text: &str) -> String {
    match text.parse::<i64>().is_ok() || matches!(text, "true" | "false") {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

fn wrapped(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        match lines.last_mut() {
            Some(last) if last.is_empty() => last.push_str(word),
            Some(last) if last.chars().count() + 1 + word.chars().count() <= WIDTH => {
                last.push(' ');
                last.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}
