//! JSON as Go writes it: fields in declared order, zero values left out, bytes as
//! base64, no spaces, and `<`, `>`, `&`, U+2028 and U+2029 escaped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// An object being written. Methods leave zero values out, as `omitempty` does.
pub(crate) struct Object<'a> {
    out: &'a mut String,
    first: bool,
}

/// Writes one object.
pub(crate) fn object(fill: impl FnOnce(&mut Object<'_>)) -> String {
    let mut out = String::new();
    write_object(&mut out, fill);
    out
}

fn write_object(out: &mut String, fill: impl FnOnce(&mut Object<'_>)) {
    out.push('{');
    fill(&mut Object { out, first: true });
    out.push('}');
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(',');
        }
        string(self.out, key);
        self.out.push(':');
    }

    /// Text, even when it is empty.
    pub(crate) fn always(&mut self, key: &str, value: &str) {
        self.key(key);
        string(self.out, value);
    }

    /// Text.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.always(key, value);
        }
    }

    /// A number.
    pub(crate) fn number(&mut self, key: &str, value: i64) {
        if value != 0 {
            self.always_number(key, value);
        }
    }

    /// A number, even when it is zero.
    pub(crate) fn always_number(&mut self, key: &str, value: i64) {
        self.key(key);
        self.out.push_str(&value.to_string());
    }

    /// A truth.
    pub(crate) fn truth(&mut self, key: &str, value: bool) {
        if value {
            self.always_truth(key, value);
        }
    }

    /// A truth, even when it is none.
    pub(crate) fn always_truth(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.push_str(if value { "true" } else { "false" });
    }

    /// Bytes.
    pub(crate) fn bytes(&mut self, key: &str, value: &[u8]) {
        if !value.is_empty() {
            self.key(key);
            self.out.push('"');
            STANDARD.encode_string(value, self.out);
            self.out.push('"');
        }
    }

    /// An object, even when there is nothing in it.
    pub(crate) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        write_object(self.out, fill);
    }

    /// A list of texts.
    pub(crate) fn texts<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        self.list(key, values, |out, value| string(out, value.as_ref()));
    }

    /// A list of objects.
    pub(crate) fn objects<T>(
        &mut self,
        key: &str,
        values: &[T],
        mut fill: impl FnMut(&mut Object<'_>, &T),
    ) {
        self.list(key, values, |out, value| {
            write_object(out, |object| fill(object, value));
        });
    }

    /// A list of anything.
    pub(crate) fn list<T>(
        &mut self,
        key: &str,
        values: &[T],
        mut each: impl FnMut(&mut String, &T),
    ) {
        if values.is_empty() {
            return;
        }
        self.key(key);
        self.out.push('[');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            each(self.out, value);
        }
        self.out.push(']');
    }
}

/// Writes a text in quotes.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
