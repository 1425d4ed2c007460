//! Wildcards in one path component, with the meaning of Go's `path.Match`.

/// Whether a source path has wildcards at all.
pub fn has_wildcards(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Whether `name` matches. `None` when the pattern cannot be read.
pub fn matches(pattern: &[u8], name: &[u8]) -> Option<bool> {
    let pattern = parse(pattern)?;
    let name: Vec<char> = String::from_utf8_lossy(name).chars().collect();
    // The place after the last `*`, to come back to with one more character taken.
    let (mut at, mut in_name) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match pattern.get(at) {
            Some(Part::Star) => {
                at += 1;
                retry = Some((at, in_name));
                continue;
            }
            Some(part) if name.get(in_name).is_some_and(|c| part.takes(*c)) => {
                at += 1;
                in_name += 1;
                continue;
            }
            None if in_name == name.len() => return Some(true),
            _ => {}
        }
        match retry {
            Some((back, taken)) if taken < name.len() => {
                retry = Some((back, taken + 1));
                (at, in_name) = (back, taken + 1);
            }
            _ => return Some(false),
        }
    }
}

enum Part {
    Char(char),
    Any,
    Star,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Part::Char(wanted) => *wanted == c,
            Part::Any => true,
            Part::Star => false,
            Part::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
        }
    }
}

fn parse(pattern: &[u8]) -> Option<Vec<Part>> {
    let text = String::from_utf8_lossy(pattern);
    let mut chars = text.chars().peekable();
    let mut parts = Vec::new();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Star,
            '?' => Part::Any,
            '\\' => Part::Char(chars.next()?),
            '[' => class(&mut chars)?,
            c => Part::Char(c),
        });
    }
    Some(parts)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Part::Class { negated, ranges });
        }
        let mut one = || match chars.next()? {
            '\\' => chars.next(),
            '-' | ']' => None,
            c => Some(c),
        };
        let from = one()?;
        let to = if chars.next_if_eq(&'-').is_some() {
            match chars.next()? {
                '\\' => chars.next()?,
                '-' | ']' => return None,
                c => c,
            }
        } else {
            from
        };
        ranges.push((from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        let yes = [
            ("*", "a"),
            ("*", ""),
            ("a*c", "abbc"),
            ("a*b*c", "axxbyyc"),
            ("?", "ä"),
            ("[a-c]x", "bx"),
            ("[^a]x", "bx"),
            ("\\*", "*"),
            ("*.go", ".go"),
            ("a[\\]]", "a]"),
        ];
        for (pattern, name) in yes {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                Some(true),
                "{pattern} {name}"
            );
        }
        for (pattern, name) in [
            ("a*c", "ab"),
            ("?", ""),
            ("[^a]", "a"),
            ("a", "A"),
            ("", "x"),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                Some(false),
                "{pattern} {name}"
            );
        }
        for bad in ["[", "[]", "[a", "a\\", "[a-]", "[-x]"] {
            assert_eq!(matches(bad.as_bytes(), b"x"), None, "{bad}");
        }
        assert!(has_wildcards(b"a[b") && has_wildcards(b"\\a*") && !has_wildcards(b"a\\*"));
    }
}
