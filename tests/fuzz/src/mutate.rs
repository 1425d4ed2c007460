//! Makes new inputs of old ones: bytes, words the target knows, and the fields of wire
//! messages (length prefixes stay right, so that the change gets past the first check).

use testkit::dice::Dice;

/// How inputs of a target are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Bytes or text.
    Bytes,
    /// A wire message behind this many bytes of choices.
    Message(usize),
    /// Pieces, each behind its length in two bytes, after this many bytes of choices; each piece
    /// may be a message.
    Pieces(usize),
}

/// Numbers that tend to hurt.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// What a mutation may take from.
pub(crate) struct Mutator<'a> {
    pub(crate) dice: Dice,
    pub(crate) shape: Shape,
    pub(crate) words: &'a [&'a str],
    pub(crate) longest: usize,
}

impl Mutator<'_> {
    /// A new input from one of `pool`.
    pub(crate) fn make(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let from = &pool[self.below(pool.len())];
        let other = &pool[self.below(pool.len())];
        let mut input = from.clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input, other);
        }
        input.truncate(self.longest);
        input
    }

    fn below(&mut self, sides: usize) -> usize {
        self.dice.roll(sides as u64) as usize
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let plain = self.dice.roll(3) == 0;
        match self.shape {
            Shape::Message(skip) if !plain && input.len() > skip => {
                let changed = self.message(&input[skip..], 0);
                input.truncate(skip);
                input.extend(changed);
            }
            Shape::Pieces(skip) if !plain && input.len() > skip => self.pieces(input, skip, other),
            Shape::Message(skip) | Shape::Pieces(skip)
                if self.dice.roll(8) == 0 && skip > 0 && input.len() >= skip =>
            {
                let at = self.below(skip);
                input[at] = self.dice.number() as u8;
            }
            _ => self.bytes(input, other),
        }
    }

    /// One change that knows nothing of what the bytes mean.
    fn bytes(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.dice.roll(9) {
            0 if at < input.len() => input[at] ^= 1 << self.dice.roll(8),
            1 if at < input.len() => input[at] = self.dice.number() as u8,
            2 => drop(input.drain(at.min(end)..end)),
            3 => {
                let piece = input[at.min(end)..end].to_vec();
                let times = 1 + self.below(40);
                input.splice(at..at, piece.repeat(times));
            }
            4 if !other.is_empty() => {
                let from = self.below(other.len());
                let to = (from + 1 + self.below(64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            5 => {
                let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                let length = [1, 2, 4, 8][self.below(4)];
                let end = (at + length).min(input.len());
                input.splice(at..end, number[..length].iter().copied());
            }
            6 => input.truncate(at),
            _ if !self.words.is_empty() => {
                let word = self.words[self.below(self.words.len())];
                let over = self.dice.roll(2) == 0;
                let end = if over {
                    (at + word.len()).min(input.len())
                } else {
                    at
                };
                input.splice(at..end, word.bytes());
            }
            _ => input.insert(at, self.dice.number() as u8),
        }
    }

    fn pieces(&mut self, input: &mut Vec<u8>, skip: usize, other: &[u8]) {
        let mut all = split(&input[skip..]);
        let theirs = split(other.get(skip..).unwrap_or_default());
        let at = self.below(all.len().max(1));
        match self.dice.roll(6) {
            0 if !all.is_empty() => drop(all.remove(at)),
            1 if !all.is_empty() => {
                let piece = all[at].clone();
                let to = self.below(all.len() + 1);
                all.insert(to, piece);
            }
            2 if !theirs.is_empty() => {
                let piece = theirs[self.below(theirs.len())].clone();
                all.insert(at.min(all.len()), piece);
            }
            3 if all.len() > 1 => {
                let to = self.below(all.len());
                all.swap(at, to);
            }
            _ if !all.is_empty() => {
                all[at] = if self.dice.roll(4) == 0 {
                    let mut piece = all[at].clone();
                    self.bytes(&mut piece, &[]);
                    piece
                } else {
                    self.message(&all[at], 0)
                };
            }
            _ => {}
        }
        input.truncate(skip);
        for piece in all {
            let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
            input.extend(length.to_be_bytes());
            input.extend(&piece[..usize::from(length)]);
        }
    }

    /// One change to a field of a wire message, at any depth.
    fn message(&mut self, bytes: &[u8], depth: usize) -> Vec<u8> {
        let Some(mut fields) = fields(bytes) else {
            let mut bytes = bytes.to_vec();
            self.bytes(&mut bytes, &[]);
            return bytes;
        };
        if fields.is_empty() {
            let number = 1 + self.dice.roll(16);
            fields.push((number, Value::Bytes(self.word())));
            return written(&fields);
        }
        let at = self.below(fields.len());
        match (self.dice.roll(8), &fields[at].1) {
            (0, _) => drop(fields.remove(at)),
            (1, _) => {
                let field = fields[at].clone();
                fields.insert(at, field);
            }
            (2, _) => fields[at].0 = 1 + self.dice.roll(16),
            (_, Value::Number(_)) => {
                let number = NUMBERS[self.below(NUMBERS.len())];
                fields[at].1 = Value::Number(number);
            }
            (kind, Value::Bytes(inner)) => {
                let inner = inner.clone();
                let text = std::str::from_utf8(&inner).is_ok() && self.dice.roll(2) == 0;
                fields[at].1 = Value::Bytes(match kind {
                    _ if text && self.dice.roll(2) == 0 => self.word(),
                    _ if !text && depth < 8 => self.message(&inner, depth + 1),
                    _ => {
                        let mut inner = inner;
                        self.bytes(&mut inner, &[]);
                        inner
                    }
                });
            }
            (_, Value::Fixed(_)) => drop(fields.remove(at)),
        }
        written(&fields)
    }

    fn word(&mut self) -> Vec<u8> {
        if self.words.is_empty() {
            return vec![b'x'; self.below(300)];
        }
        self.words[self.below(self.words.len())].as_bytes().to_vec()
    }
}

/// Pieces behind their lengths; what is left over is one more.
pub(crate) fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        all.push(rest[..length].to_vec());
        bytes = &rest[length..];
    }
    all
}

/// The way back.
pub(crate) fn join(choices: &[u8], pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut input = choices.to_vec();
    for piece in pieces {
        let length = u16::try_from(piece.len()).expect("pieces of seeds are short");
        input.extend(length.to_be_bytes());
        input.extend(piece);
    }
    input
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

fn number(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn fields(bytes: &[u8]) -> Option<Vec<(u64, Value)>> {
    let (mut at, mut fields) = (0, Vec::new());
    while at < bytes.len() {
        let tag = number(bytes, &mut at)?;
        let mut fixed = |length: usize| {
            let piece = bytes.get(at..at.checked_add(length)?)?.to_vec();
            at += length;
            Some(piece)
        };
        let value = match tag & 7 {
            0 => Value::Number(number(bytes, &mut at)?),
            1 => Value::Fixed(fixed(8)?),
            5 => Value::Fixed(fixed(4)?),
            2 => {
                let length = usize::try_from(number(bytes, &mut at)?).ok()?;
                let piece = bytes.get(at..at.checked_add(length)?)?.to_vec();
                at += length;
                Value::Bytes(piece)
            }
            _ => return None,
        };
        fields.push((tag >> 3, value));
    }
    Some(fields)
}

fn written(fields: &[(u64, Value)]) -> Vec<u8> {
    fn put(out: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    let mut out = Vec::new();
    for (field, value) in fields {
        match value {
            Value::Number(value) => {
                put(&mut out, field << 3);
                put(&mut out, *value);
            }
            Value::Fixed(bytes) => {
                put(&mut out, field << 3 | if bytes.len() == 8 { 1 } else { 5 });
                out.extend(bytes);
            }
            Value::Bytes(bytes) => {
                put(&mut out, field << 3 | 2);
                put(&mut out, bytes.len() as u64);
                out.extend(bytes);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn fields_are_read_and_written_as_they_were() {
        let message = proto::pb::Definition {
            def: vec!["one".into(), vec![8, 150, 1].into()],
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        let read = fields(&bytes).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(written(&read), bytes);
        assert_eq!(fields(&[8]), None);
    }

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_most_differ() {
        let pool = vec![join(&[1], &[vec![8, 1], b"abc".to_vec()]), b"xyz".to_vec()];
        let play = || {
            let mut mutator = Mutator {
                dice: Dice::new(5),
                shape: Shape::Pieces(1),
                words: &["word"],
                longest: 100,
            };
            (0..200).map(|_| mutator.make(&pool)).collect::<Vec<_>>()
        };
        let made = play();
        assert_eq!(made, play());
        let different: std::collections::BTreeSet<_> = made.iter().collect();
        assert!(different.len() > 100, "{}", different.len());
    }
}
