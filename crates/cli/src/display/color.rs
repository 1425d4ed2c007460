//! The colours of the live view, and how `BUILDKIT_COLORS` changes them.

/// A colour as the terminal is told it; empty for none.
pub type Sgr = String;

/// Which colour means what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Palette {
    /// Steps that ended well.
    pub run: Sgr,
    /// Steps whose result was there already.
    pub cached: Sgr,
    /// Steps nobody waits for any more.
    pub cancel: Sgr,
    /// Steps that failed.
    pub error: Sgr,
    /// Remarks.
    pub warning: Sgr,
    /// Output of running steps.
    pub faint: Sgr,
}

impl Default for Palette {
    fn default() -> Palette {
        Palette {
            run: "34".into(),
            cached: "36".into(),
            cancel: "33".into(),
            error: "31".into(),
            warning: "33".into(),
            faint: "2".into(),
        }
    }
}

impl Palette {
    /// No colours at all (`NO_COLOR`).
    pub fn none() -> Palette {
        let none = Sgr::new();
        Palette {
            run: none.clone(),
            cached: none.clone(),
            cancel: none.clone(),
            error: none.clone(),
            warning: none.clone(),
            faint: none,
        }
    }

    /// Changes the colours `BUILDKIT_COLORS` names: `run=green:error=255,0,0`.
    /// What it does not understand it hands back, one remark each.
    pub fn customize(&mut self, text: &str) -> Vec<String> {
        let mut remarks = Vec::new();
        for field in text.split(':').filter(|field| !field.is_empty()) {
            let Some((what, color)) = field.split_once('=') else {
                remarks.push(format!("BUILDKIT_COLORS: `{field}` is not like name=color"));
                continue;
            };
            let Some(sgr) = sgr(color) else {
                remarks.push(format!("BUILDKIT_COLORS: `{color}` is no color"));
                continue;
            };
            match what.to_ascii_lowercase().as_str() {
                "run" => self.run = sgr,
                "cancel" => self.cancel = sgr,
                "error" => self.error = sgr,
                "warning" => self.warning = sgr,
                _ => remarks.push(format!(
                    "BUILDKIT_COLORS: `{what}` is not one of run, cancel, error, warning"
                )),
            }
        }
        remarks
    }
}

/// `text` in a colour.
pub fn paint(text: &str, sgr: &str) -> String {
    if sgr.is_empty() {
        text.to_owned()
    } else {
        format!("\x1b[{sgr}m{text}\x1b[0m")
    }
}

fn sgr(color: &str) -> Option<Sgr> {
    const NAMES: [(&str, &str); 17] = [
        ("default", "39"),
        ("black", "30"),
        ("red", "31"),
        ("green", "32"),
        ("yellow", "33"),
        ("blue", "34"),
        ("magenta", "35"),
        ("cyan", "36"),
        ("white", "37"),
        ("light-black", "90"),
        ("light-red", "91"),
        ("light-green", "92"),
        ("light-yellow", "93"),
        ("light-blue", "94"),
        ("light-magenta", "95"),
        ("light-cyan", "96"),
        ("light-white", "97"),
    ];
    if let Some((_, code)) = NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(color))
    {
        return Some((*code).to_owned());
    }
    let parts: Option<Vec<u8>> = color
        .split(',')
        .map(|part| part.trim().parse().ok())
        .collect();
    match parts?.as_slice() {
        [r, g, b] => Some(format!("38;2;{r};{g};{b}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: B06
    #[test]
    fn names_and_rgb_change_colors_and_mistakes_are_told() {
        let mut palette = Palette::default();
        let remarks = palette.customize("run=green:error=255,0,16:x=red:warning=blurple:cancel");
        assert_eq!(palette.run, "32");
        assert_eq!(palette.error, "38;2;255;0;16");
        assert_eq!(remarks.len(), 3, "{remarks:?}");
    }
}
