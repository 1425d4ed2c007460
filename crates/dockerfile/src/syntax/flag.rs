//! Flags between an instruction's keyword and its arguments: `--from=build`.

/// Takes the leading `--flag` words off `text`. Quotes and backslashes work inside a
/// flag's value. A bare `--` ends the flags.
pub(super) fn take_flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, after) = take_word(rest);
        rest = after.trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

fn take_word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => return (word, &text[at..]),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            ('\\', _) => word.extend(chars.next().map(|(_, c)| c)),
            (c, _) => word.push(c),
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_where_the_arguments_begin() {
        let (flags, rest) = take_flags(r#"--a=1 --b="x y" --c=\"q a --d"#);
        assert_eq!(flags, ["--a=1", "--b=x y", "--c=\"q"]);
        assert_eq!(rest, "a --d");
        assert_eq!(take_flags("-- --x"), (vec![], "--x"));
        assert_eq!(take_flags("-x y"), (vec![], "-x y"));
        assert_eq!(take_flags("--a"), (vec!["--a".to_owned()], ""));
        assert_eq!(
            take_flags("--a='open end"),
            (vec!["--a=open end".to_owned()], "")
        );
    }
}
