//! A definition: a graph as it travels, with what is said about its steps.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci::Digest;
use prost::Message as _;
use proto::pb;

use crate::{Edge, Error, Result, wire};

/// A graph as bytes. The digest of each entry of `def` is the name of a step;
/// the last entry names the result. No entries at all is the empty tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    /// The exact bytes of each step, inputs before those who use them.
    pub def: Vec<Bytes>,
    /// What is said about steps without being part of their names.
    pub metadata: BTreeMap<Digest, Metadata>,
    /// Where the steps came from.
    pub source: Option<SourceMap>,
}

/// What is said about a step without being part of its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// Run even when a result is known.
    pub ignore_cache: bool,
    /// Free text by key; see [`crate::attr::CUSTOM_NAME`].
    pub description: BTreeMap<String, String>,
    /// Whether results may go to remote caches; `None` as usual.
    pub export_cache: Option<bool>,
    /// What the builder must be able to do.
    pub caps: BTreeMap<String, bool>,
    /// Shown together with.
    pub progress_group: Option<ProgressGroup>,
    /// What the process may use.
    pub resources: Option<Resources>,
}

/// Steps that are shown as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Same id, same group.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Only when another member of it is shown.
    pub weak: bool,
}

/// What a process may use; 0 and empty are no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of memory and swap together.
    pub memory_swap: i64,
    /// Weight against others.
    pub cpu_shares: i64,
    /// Microseconds of a period.
    pub cpu_period: i64,
    /// Microseconds of processor time in a period.
    pub cpu_quota: i64,
    /// Like `0-3,8`.
    pub cpuset_cpus: String,
    /// Like `0`.
    pub cpuset_mems: String,
}

/// Where steps came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceMap {
    /// Places per step.
    pub locations: BTreeMap<Digest, Vec<Location>>,
    /// The files.
    pub infos: Vec<SourceInfo>,
}

/// A file steps came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceInfo {
    /// As the user named it.
    pub filename: String,
    /// Its text.
    pub data: Bytes,
    /// How it was read.
    pub definition: Option<Box<Definition>>,
    /// Like `Dockerfile`.
    pub language: String,
}

/// Places in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// Index into [`SourceMap::infos`].
    pub source: u32,
    /// The places.
    pub ranges: Vec<Range>,
}

/// From one place to another, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Range {
    /// First.
    pub start: Position,
    /// Last.
    pub end: Position,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// From 1.
    pub line: i32,
    /// From 0.
    pub character: i32,
}

impl Definition {
    /// Reads the bytes of a definition message.
    pub fn decode(bytes: Bytes) -> Result<Definition> {
        let message = pb::Definition::decode(bytes).map_err(|e| Error::Decode(e.to_string()))?;
        Definition::from_proto(message)
    }

    /// Writes the definition as a message. The steps keep their bytes; the message
    /// around them has no digest anyone relies on.
    pub fn encode(&self) -> Bytes {
        self.to_proto().encode_to_vec().into()
    }

    /// The result, as the last entry names it; `None` is the empty tree.
    pub fn head(&self) -> Result<Option<Edge>> {
        let Some(last) = self.def.last() else {
            return Ok(None);
        };
        let last = wire::decode(last.clone())?;
        match (last.kind, &last.inputs[..]) {
            (None, [edge]) => Ok(Some(*edge)),
            (None, _) => Err(Error::Definition(
                "the last op has to have exactly one input",
            )),
            (Some(_), _) => Err(Error::Definition("the last op has to name the result only")),
        }
    }

    /// Takes the wire message.
    pub fn from_proto(message: pb::Definition) -> Result<Definition> {
        let metadata = message
            .metadata
            .into_iter()
            .map(|(digest, m)| Ok((digest.parse()?, metadata_from(m))))
            .collect::<Result<_>>()?;
        Ok(Definition {
            def: message.def,
            metadata,
            source: message.source.map(source_from).transpose()?,
        })
    }

    /// Gives the wire message.
    pub fn to_proto(&self) -> pb::Definition {
        pb::Definition {
            def: self.def.clone(),
            metadata: self
                .metadata
                .iter()
                .map(|(d, m)| (d.to_string(), metadata_to(m)))
                .collect(),
            source: self.source.as_ref().map(source_to),
        }
    }
}

impl Metadata {
    /// Adds what another mention of the same step says.
    pub(crate) fn merge(&mut self, other: Metadata) {
        self.ignore_cache |= other.ignore_cache;
        self.description.extend(other.description);
        if other.export_cache.is_some() {
            self.export_cache = other.export_cache;
        }
        self.caps.extend(other.caps);
        if other.progress_group.is_some() {
            self.progress_group = other.progress_group;
        }
        if other.resources.is_some() {
            self.resources = other.resources;
        }
    }
}

impl SourceInfo {
    /// Takes the wire message.
    pub fn from_proto(info: pb::SourceInfo) -> Result<SourceInfo> {
        Ok(SourceInfo {
            filename: info.filename,
            data: info.data,
            definition: info
                .definition
                .map(Definition::from_proto)
                .transpose()?
                .map(Box::new),
            language: info.language,
        })
    }

    /// Gives the wire message.
    pub fn to_proto(&self) -> pb::SourceInfo {
        pb::SourceInfo {
            filename: self.filename.clone(),
            data: self.data.clone(),
            definition: self.definition.as_deref().map(Definition::to_proto),
            language: self.language.clone(),
        }
    }
}

impl Range {
    /// Takes the wire message.
    pub fn from_proto(range: pb::Range) -> Range {
        let position = |p: Option<pb::Position>| {
            p.map_or_else(Position::default, |p| Position {
                line: p.line,
                character: p.character,
            })
        };
        Range {
            start: position(range.start),
            end: position(range.end),
        }
    }

    /// Gives the wire message.
    pub fn to_proto(self) -> pb::Range {
        let position = |p: Position| {
            Some(pb::Position {
                line: p.line,
                character: p.character,
            })
        };
        pb::Range {
            start: position(self.start),
            end: position(self.end),
        }
    }
}

fn metadata_from(m: pb::OpMetadata) -> Metadata {
    Metadata {
        ignore_cache: m.ignore_cache,
        description: m.description,
        export_cache: m.export_cache.map(|e| e.value),
        caps: m.caps,
        progress_group: m.progress_group.map(|g| ProgressGroup {
            id: g.id,
            name: g.name,
            weak: g.weak,
        }),
        resources: m.linux_resources.map(|r| Resources {
            memory: r.memory,
            memory_swap: r.memory_swap,
            cpu_shares: r.cpu_shares,
            cpu_period: r.cpu_period,
            cpu_quota: r.cpu_quota,
            cpuset_cpus: r.cpuset_cpus,
            cpuset_mems: r.cpuset_mems,
        }),
    }
}

fn metadata_to(m: &Metadata) -> pb::OpMetadata {
    pb::OpMetadata {
        ignore_cache: m.ignore_cache,
        description: m.description.clone(),
        export_cache: m.export_cache.map(|value| pb::ExportCache { value }),
        caps: m.caps.clone(),
        progress_group: m.progress_group.as_ref().map(|g| pb::ProgressGroup {
            id: g.id.clone(),
            name: g.name.clone(),
            weak: g.weak,
        }),
        linux_resources: m.resources.as_ref().map(|r| pb::LinuxResources {
            memory: r.memory,
            memory_swap: r.memory_swap,
            cpu_shares: r.cpu_shares,
            cpu_period: r.cpu_period,
            cpu_quota: r.cpu_quota,
            cpuset_cpus: r.cpuset_cpus.clone(),
            cpuset_mems: r.cpuset_mems.clone(),
        }),
    }
}

fn source_from(source: pb::Source) -> Result<SourceMap> {
    let mut locations = BTreeMap::new();
    for (digest, places) in source.locations {
        let places = places
            .locations
            .into_iter()
            .map(|l| {
                Ok(Location {
                    source: u32::try_from(l.source_index)
                        .map_err(|_| Error::Definition("a location in a negative file"))?,
                    ranges: l.ranges.into_iter().map(Range::from_proto).collect(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let digest = digest.parse()?;
        // A vertex without lines is one that is not there, see `source_to`.
        if !places.is_empty() {
            locations.insert(digest, places);
        }
    }
    let infos = source
        .infos
        .into_iter()
        .map(SourceInfo::from_proto)
        .collect::<Result<_>>()?;
    Ok(SourceMap { locations, infos })
}

fn source_to(source: &SourceMap) -> pb::Source {
    let places = |places: &[Location]| pb::Locations {
        locations: places
            .iter()
            .map(|l| pb::Location {
                source_index: i32::try_from(l.source).unwrap_or(i32::MAX),
                ranges: l.ranges.iter().map(|r| r.to_proto()).collect(),
            })
            .collect(),
    };
    pb::Source {
        locations: source
            .locations
            .iter()
            // An empty value is left out of a map entry, and clients in Go then have no
            // message where they look for one.
            .filter(|(_, l)| !l.is_empty())
            .map(|(d, l)| (d.to_string(), places(l)))
            .collect(),
        infos: source.infos.iter().map(SourceInfo::to_proto).collect(),
    }
}
