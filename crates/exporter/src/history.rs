//! The history of an image: one entry per layer, and times for all of them.

use serde::{Deserialize, Serialize};

use crate::Stamp;

/// One line of an image's history, in the order Go writes its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Stamp>,
    /// What was done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What made the entry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether no layer belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// What is known of a layer besides its bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    pub(crate) created: Option<Stamp>,
    pub(crate) description: String,
}

/// Makes entries and layers agree, and gives every entry a time.
pub(crate) fn normalized(mut history: Vec<History>, layers: &[Made]) -> Vec<History> {
    let claimed = history.iter().filter(|entry| !entry.empty_layer).count();
    if claimed > layers.len() {
        tracing::warn!("invalid image config with unaccounted layers");
    }
    let mut used = 0;
    for entry in &mut history {
        entry.empty_layer |= used >= layers.len();
        used += usize::from(!entry.empty_layer);
    }
    history.extend(layers[used..].iter().map(|made| History {
        created: made.created,
        created_by: match made.description.as_str() {
            "" => "created by buildkit".to_owned(),
            description => description.to_owned(),
        },
        comment: "buildkit.exporter.image.v0".to_owned(),
        ..History::default()
    }));
    let with_layer = history.iter_mut().filter(|entry| !entry.empty_layer);
    for (entry, made) in with_layer.zip(layers) {
        entry.created = entry.created.or(made.created);
    }
    fill_times(&mut history);
    history
}

/// Entries before the first new layer get its time, later ones the time before them.
fn fill_times(history: &mut [History]) {
    let gap = history.iter().position(|entry| entry.created.is_none());
    let Some(gap) = gap else { return };
    let after = history[gap..].iter().find_map(|entry| entry.created);
    let mut time = after.or_else(|| history[..gap].iter().rev().find_map(|entry| entry.created));
    for entry in &mut history[gap..] {
        match entry.created {
            Some(own) => time = Some(own),
            None => entry.created = time,
        }
    }
}

/// No time after the epoch, but what the base image says stays.
pub(crate) fn clamped(mut history: Vec<History>, base: &[History], epoch: Stamp) -> Vec<History> {
    let shared = history
        .iter()
        .zip(base)
        .take_while(|(ours, theirs)| ours == theirs)
        .count();
    for entry in &mut history[shared..] {
        entry.created = Some(entry.created.map_or(epoch, |own| own.min(epoch)));
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time: Option<i64>, empty_layer: bool) -> History {
        History {
            created: time.and_then(Stamp::from_epoch),
            empty_layer,
            ..History::default()
        }
    }

    fn made(times: &[i64]) -> Vec<Made> {
        let made = |time: &i64| Made {
            created: Stamp::from_epoch(*time),
            description: format!("step {time}"),
        };
        times.iter().map(made).collect()
    }

    fn times(history: &[History]) -> Vec<i64> {
        history
            .iter()
            .map(|entry| entry.created.unwrap().epoch())
            .collect()
    }

    /// Rows: W35, W38, W39
    #[test]
    fn entries_without_time_take_that_of_the_next_new_layer_then_of_the_one_before() {
        let history = vec![
            entry(Some(10), false),
            entry(Some(11), true),
            entry(None, true),
            entry(None, false),
            entry(None, true),
            entry(None, false),
            entry(None, true),
        ];
        let done = normalized(history, &made(&[10, 20, 30]));
        assert_eq!(times(&done), [10, 11, 20, 20, 20, 30, 30]);
        let only_metadata = vec![entry(Some(10), false), entry(None, true)];
        assert_eq!(times(&normalized(only_metadata, &made(&[10]))), [10, 10]);
    }

    /// Rows: W36, W37, W42
    #[test]
    fn entries_and_layers_are_made_to_agree() {
        let too_many = vec![entry(Some(1), false), entry(Some(2), false)];
        let done = normalized(too_many, &made(&[1]));
        assert_eq!(
            done.iter().map(|e| e.empty_layer).collect::<Vec<_>>(),
            [false, true]
        );
        let done = normalized(vec![entry(Some(1), false)], &made(&[1, 5]));
        assert_eq!(done[1].created_by, "step 5");
        assert_eq!(done[1].comment, "buildkit.exporter.image.v0");
        let done = normalized(Vec::new(), &[Made::default()]);
        assert_eq!(
            (done[0].created_by.as_str(), done[0].created),
            ("created by buildkit", None)
        );
    }

    /// Rows: W32
    #[test]
    fn an_epoch_leaves_the_base_image_alone_until_the_first_difference() {
        let base = vec![entry(Some(100), false), entry(Some(200), true)];
        let mut ours = base.clone();
        ours[1].created_by = "other".to_owned();
        ours.push(entry(Some(5), true));
        ours.push(entry(None, true));
        let done = clamped(ours, &base, Stamp::from_epoch(50).unwrap());
        assert_eq!(times(&done), [100, 50, 5, 50]);
    }
}
