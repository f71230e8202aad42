//! The names under which this machine is known.

use std::{collections::BTreeSet, fs};

use crate::system;

/// Returns the machine's own name and those that its files of hosts and of the resolver add to it: on many machines the former is short,
/// and people use it with the domain of their network. What cannot be read adds nothing.
pub(super) fn names() -> Vec<String> {
    let Some(own) = system::machine_name() else { return Vec::new() };
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    names_of(&own, &read("/etc/hosts"), &read("/etc/resolv.conf"))
}

/// `hosts` and `resolver` are as hosts(5) and resolv.conf(5) have them.
fn names_of(own: &str, hosts: &str, resolver: &str) -> Vec<String> {
    let short = own.split('.').next().unwrap_or(own);
    let is_own = |name: &str| name.eq_ignore_ascii_case(own) || name.eq_ignore_ascii_case(short);
    let words = |line: &'_ str| -> Vec<String> {
        line.split(['#', ';']).next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    // Of all names of an address the first is the whole one.
    let whole = hosts.lines().map(words).filter(|words| words.iter().skip(1).any(|name| is_own(name)));
    let whole = whole.filter_map(|words| words.into_iter().nth(1));
    let domains = resolver
        .lines()
        .map(words)
        .filter(|words| words.first().is_some_and(|keyword| matches!(keyword.as_str(), "search" | "domain")));
    let in_domains = domains.flat_map(|words| words.into_iter().skip(1)).map(|domain| format!("{short}.{domain}"));
    let names: BTreeSet<String> = [own.to_owned()].into_iter().chain(whole).chain(in_domains).collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_known_with_its_domains() {
        let hosts =
            "127.0.0.1 localhost\n127.0.1.1\tnode7.site.example node7 # here\n#10.0.0.1 x node7\n10.0.0.9 other\n";
        let resolver = "nameserver 10.0.0.2\n; search old.example\nsearch studio.example  lan\n";
        assert_eq!(
            names_of("node7", hosts, resolver),
            ["node7", "node7.lan", "node7.site.example", "node7.studio.example"]
        );
        assert_eq!(names_of("node7.site.example", "", "domain x"), ["node7.site.example", "node7.x"]);
        assert_eq!(names_of("node7", "127.0.0.1 localhost node7", ""), ["localhost", "node7"]);
    }
}
