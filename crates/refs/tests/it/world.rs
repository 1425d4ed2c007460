//! Random lives of refs, played from a seed, against an oracle that knows what each must show.
//! `SEED=42 cargo test -p refs world` plays one world again. A second world is killed at random
//! moments and looked at by whoever opens it next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use content::{Memory, Store};
use layer::Algorithm;
use progress::StepProgress;
use refs::{BlobOptions, Create, Filter, Parts, PrunePolicy, RecordMeta, Ref, Refs, Sharing};
use snapshot::Choice;
use snapshot::testing::{listing, write};

/// Small, but every world is another.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

type Files = BTreeMap<String, String>;

/// One layer as the oracle sees it: what it writes (`None` removes).
#[derive(Clone, Debug, PartialEq)]
struct Change {
    number: u64,
    files: BTreeMap<String, Option<String>>,
}

fn shown(chain: &[Change]) -> Files {
    let mut files = Files::new();
    for (path, text) in chain.iter().flat_map(|change| &change.files) {
        match text {
            Some(text) => files.insert(path.clone(), text.clone()),
            None => files.remove(path),
        };
    }
    files
}

/// The change that gave a file what it shows.
fn made_by(chain: &[Change], path: &str) -> Option<u64> {
    Some(
        chain
            .iter()
            .rev()
            .find(|change| change.files.contains_key(path))?
            .number,
    )
}

struct World {
    refs: Refs,
    dice: Dice,
    next: u64,
    alive: Vec<(Ref, Vec<Change>)>,
}

impl World {
    fn new(refs: Refs, seed: u64) -> World {
        World {
            refs,
            dice: Dice(seed),
            next: 0,
            alive: Vec::new(),
        }
    }

    fn pick(&mut self) -> Option<(Ref, Vec<Change>)> {
        let count = self.alive.len() as u64;
        (count > 0).then(|| self.alive[self.dice.roll(count) as usize].clone())
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    async fn turn(&mut self) {
        match self.dice.roll(12) {
            0..=3 => self.a_step_runs().await,
            4 => self.two_are_merged(),
            5 => self.two_are_compared(),
            6 => self.one_is_exported_and_imported().await,
            7 => self.a_cache_mount_is_used().await,
            8 => {
                self.refs
                    .prune(
                        &[PrunePolicy {
                            all: true,
                            ..PrunePolicy::default()
                        }],
                        &[],
                    )
                    .unwrap();
            }
            _ => {
                if self.alive.len() > 3 {
                    let gone = self.dice.roll(self.alive.len() as u64) as usize;
                    self.alive.swap_remove(gone);
                }
            }
        }
        if let Some((of, chain)) = self.pick() {
            check(&of, &shown(&chain), &chain).await;
        }
    }

    async fn a_step_runs(&mut self) {
        let parent = if self.dice.roll(4) == 0 {
            None
        } else {
            self.pick()
        };
        let (parent, mut chain) = parent.map_or((None, Vec::new()), |(p, c)| (Some(p), c));
        if let Some(parent) = &parent {
            parent
                .unpack(&Memory::default(), &StepProgress::none())
                .await
                .unwrap();
        }
        let before = shown(&chain);
        let mut change = Change {
            number: self.number(),
            files: BTreeMap::new(),
        };
        for _ in 0..=self.dice.roll(3) {
            let path = ["a", "b", "c", "d/a", "d/b", "e/f/g"][self.dice.roll(6) as usize];
            let removes = before.contains_key(path) && self.dice.roll(3) == 0;
            let text = (!removes).then(|| format!("{path} {}", change.number));
            change.files.insert(path.to_owned(), text);
        }
        chain.push(change.clone());
        // Whoever finds the record after a crash knows from it what it must show.
        let description = serde_json::to_string(&shown(&chain)).unwrap();
        let mutable = self
            .refs
            .begin(parent.as_ref(), RecordMeta::new(description))
            .unwrap();
        for (path, text) in &change.files {
            match text {
                Some(text) => write(mutable.tree().root(), path, text),
                None => mutable.tree().root().unlink(path).unwrap(),
            }
        }
        if self.dice.roll(8) != 0 {
            self.alive.push((mutable.commit().unwrap(), chain));
        }
    }

    fn two_are_merged(&mut self) {
        if let (Some((a, mut lower)), Some((b, upper))) = (self.pick(), self.pick()) {
            lower.extend(upper);
            self.alive
                .push((self.refs.merge(vec![a, b]).unwrap(), lower));
        }
    }

    fn two_are_compared(&mut self) {
        let (Some((a, lower)), Some((b, upper))) = (self.pick(), self.pick()) else {
            return;
        };
        let diff = self.refs.diff(Some(&a), Some(&b)).unwrap();
        let numbers = |chain: &[Change]| chain.iter().map(|c| c.number).collect::<Vec<_>>();
        if numbers(&upper).starts_with(&numbers(&lower)) {
            let above = upper[lower.len()..].to_vec();
            assert_eq!(diff.is_none(), above.is_empty());
            self.alive.extend(diff.map(|diff| (diff, above)));
            return;
        }
        let (before, after) = (shown(&lower), shown(&upper));
        // This oracle does not know which directories are left where there were files.
        let deep = |change: &Change| change.files.keys().any(|path| path.contains('/'));
        if lower.iter().chain(&upper).any(deep) {
            return;
        }
        // A file that went out and came in again has lost its nanoseconds: whether it differs from
        // the one that stayed is not for this oracle to say.
        let doubtful = |path: &String| made_by(&lower, path) != made_by(&upper, path);
        if after
            .iter()
            .any(|(path, text)| before.get(path) == Some(text) && doubtful(path))
        {
            return;
        }
        let mut files: BTreeMap<_, _> = before
            .keys()
            .filter(|path| !after.contains_key(*path))
            .map(|path| (path.clone(), None))
            .collect();
        let new = after
            .into_iter()
            .filter(|(path, text)| before.get(path) != Some(text));
        files.extend(new.map(|(path, text)| (path, Some(text))));
        let number = self.number();
        self.alive
            .push((diff.expect("they differ"), vec![Change { number, files }]));
    }

    async fn one_is_exported_and_imported(&mut self) {
        let Some((of, chain)) = self.pick() else {
            return;
        };
        let algorithm = [Algorithm::Gzip, Algorithm::Zstd][self.dice.roll(2) as usize];
        let options = BlobOptions {
            compression: algorithm.into(),
            force: self.dice.roll(2) == 0,
        };
        let step = StepProgress::none();
        let blobs = of
            .layers(&options, Create::Yes, &Memory::default(), &step)
            .await
            .unwrap();
        assert_eq!(blobs.len(), chain.len());
        let again = of
            .layers(&options, Create::No, &Memory::default(), &step)
            .await
            .unwrap();
        assert_eq!(again, blobs);
        let mut blobs = blobs;
        blobs
            .iter_mut()
            .for_each(|blob| blob.description = "imported".to_owned());
        if let Some(imported) = self.refs.from_layers(blobs).unwrap() {
            // What was compared is, once imported, a change like any other; so are merges.
            let chain = chain.into_iter().map(|change| Change {
                number: self.number(),
                ..change
            });
            let chain: Vec<Change> = chain.collect();
            if imported != of {
                self.alive.push((imported, chain));
            }
        }
    }

    async fn a_cache_mount_is_used(&mut self) {
        let key = format!("cache-{}", self.dice.roll(2));
        let cache = self
            .refs
            .named(&key, None, Sharing::Shared, RecordMeta::new("cache"))
            .await
            .unwrap();
        let count = listing(&cache.tree()).len();
        write(cache.tree().root(), &format!("use-{count}"), "");
    }
}

async fn check(of: &Ref, expected: &Files, chain: &[Change]) {
    let tree = of
        .tree(&Memory::default(), &StepProgress::none())
        .await
        .unwrap();
    let mut found = listing(&tree);
    found.retain(|_, what| what != "/");
    assert_eq!(&found, expected, "{of:?} {chain:?}");
}

fn open(dir: &Path, choice: Choice) -> Refs {
    let db = Arc::new(db::Db::open(dir.join("state.db")).unwrap());
    let store = Store::open(dir.join("content"), Arc::clone(&db)).unwrap();
    let snapshots = snapshot::open(dir.join("snapshots"), choice).unwrap();
    let leases = lease::Leases::open(dir.join("leases"), Arc::clone(&db)).unwrap();
    Refs::open(Parts {
        db,
        store,
        snapshots,
        leases,
    })
    .unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Prunes everything and sees that the disk is empty and the count was right.
fn end(refs: &Refs) {
    refs.prune(
        &[PrunePolicy {
            all: true,
            ..PrunePolicy::default()
        }],
        &[],
    )
    .unwrap();
    assert_eq!(refs.usage(&Filter::default()).unwrap(), []);
    refs.snapshots().settle();
    assert_eq!(refs.snapshots().layers().unwrap(), []);
    assert_eq!(refs.snapshots().kept().unwrap(), []);
    assert_eq!(refs.store().digests_on_disk().unwrap(), []);
}

async fn play(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let choice = if is_root() && !seed.is_multiple_of(3) {
        Choice::Overlay
    } else {
        Choice::Native
    };
    let mut world = World::new(open(dir.path(), choice), seed);
    for turn in 0..60 {
        tracing::debug!(seed, turn);
        world.turn().await;
        if turn % 20 == 19 {
            // The process ends and another begins: what it still needs, it asks for by id.
            let alive: Vec<_> = world
                .alive
                .drain(..)
                .map(|(of, c)| (of.id().to_owned(), c))
                .collect();
            let (dice, next) = (Dice(world.dice.0), world.next);
            drop(world);
            let refs = open(dir.path(), choice);
            let again = |(id, chain): (String, _)| {
                (refs.get(&id).unwrap().expect("nothing was lost"), chain)
            };
            let alive = alive.into_iter().map(again).collect();
            world = World {
                alive,
                dice,
                next,
                refs,
            };
        }
    }
    let ids: BTreeSet<_> = world
        .alive
        .iter()
        .map(|(of, _)| of.id().to_owned())
        .collect();
    for (of, chain) in &world.alive {
        check(of, &shown(chain), chain).await;
    }
    let usage = world.refs.usage(&Filter::default()).unwrap();
    let in_use: BTreeSet<_> = usage
        .into_iter()
        .filter(|r| r.in_use)
        .map(|r| r.id)
        .collect();
    assert_eq!(in_use, ids, "seed {seed}");
    world.alive.clear();
    end(&world.refs);
}

/// Rows: C12, Z3, Z4
#[tokio::test(flavor = "multi_thread")]
async fn random_lives_show_what_they_must() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..12).collect(),
    };
    for seed in seeds {
        play(seed).await;
    }
}

/// The child of the next test: lives until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_lives_until_killed() {
    let Ok(dir) = std::env::var("KILN_REFS_CRASH_CHILD") else {
        return;
    };
    let seed: u64 = std::env::var("KILN_REFS_CRASH_SEED")
        .unwrap()
        .parse()
        .unwrap();
    let choice = if is_root() {
        Choice::Overlay
    } else {
        Choice::Native
    };
    let mut world = World::new(open(Path::new(&dir), choice), seed);
    loop {
        world.turn().await;
    }
}

/// Rows: Z3
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_leaves_records_that_show_what_they_must() {
    let dir = tempfile::tempdir().unwrap();
    let choice = if is_root() {
        Choice::Overlay
    } else {
        Choice::Native
    };
    let mut seen = 0;
    for round in 0..15_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "world::child_that_lives_until_killed"])
            .env("KILN_REFS_CRASH_CHILD", dir.path())
            .env("KILN_REFS_CRASH_SEED", round.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + 17 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let refs = open(dir.path(), choice);
        for record in refs.usage(&Filter::default()).unwrap() {
            assert!(!record.in_use, "held by nobody alive: {record:?}");
            let Some(of) = refs.get(&record.id).unwrap() else {
                continue;
            };
            match serde_json::from_str::<Files>(&record.description) {
                Ok(expected) => check(&of, &expected, &[]).await,
                // Merges and differences are not described, but must be there.
                Err(_) => drop(
                    of.tree(&Memory::default(), &StepProgress::none())
                        .await
                        .unwrap(),
                ),
            }
            seen += 1;
        }
        if round % 5 == 4 {
            end(&refs);
        }
    }
    assert!(seen > 10, "only {seen} records were looked at");
}
