//! Plain progress lines, read back: `#5 [build 2/3] RUN make`, `#5 CACHED`.

use std::collections::BTreeMap;

/// What the lines tell of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// As the display calls it.
    pub(crate) name: String,
    /// It was found, not done.
    pub(crate) cached: bool,
    /// It ended well.
    pub(crate) done: bool,
    /// Why it was not found.
    pub(crate) why: Option<String>,
    /// What its program said, without times.
    pub(crate) log: Vec<String>,
}

impl Step {
    /// All steps, in order of their numbers.
    pub(super) fn all(text: &str) -> Vec<Step> {
        let mut steps: BTreeMap<u32, Step> = BTreeMap::new();
        for line in text.lines() {
            let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            match steps.get_mut(&number) {
                None => {
                    let step = Step {
                        name: rest.to_owned(),
                        ..Step::default()
                    };
                    steps.insert(number, step);
                }
                Some(step) => step.line(rest),
            }
        }
        steps.into_values().collect()
    }

    fn line(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("not", rest)) if rest.starts_with("cached: ") => {
                self.why = rest.strip_prefix("cached: ").map(str::to_owned);
            }
            _ if line == "CACHED" => (self.cached, self.done) = (true, true),
            Some(("DONE", _)) => self.done = true,
            Some((time, said)) if time.parse::<f64>().is_ok() => self.log.push(said.to_owned()),
            _ => {}
        }
    }

    /// `[2/3] …` or `[build 2/3] …`, not `[internal] …`.
    pub(super) fn of_a_stage(&self) -> bool {
        self.name
            .strip_prefix('[')
            .and_then(|name| name.split_once(']'))
            .is_some_and(|(place, _)| place.contains('/'))
    }
}

#[test]
fn lines_become_steps() {
    let text = "#1 [internal] load\n#1 DONE 0.1s\n#2 [a 1/2] RUN x\n#2 0.213 hello you\n#2 ...\n\n#3 [b 2/2] COPY\n#3 CACHED\n#2 [a 1/2] RUN x\n#2 DONE 0.2s\n";
    let steps = Step::all(text);
    assert_eq!(steps.len(), 3);
    assert!(!steps[0].of_a_stage() && steps[1].of_a_stage());
    assert_eq!(steps[1].log, ["hello you"]);
    assert!(steps[1].done && !steps[1].cached && steps[2].cached);
}
