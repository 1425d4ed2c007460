//! A whole graph as Go's JSON has it: in the details of errors, as the graph that loads the
//! file an error is about.

use super::{bytes, locations_body};
use crate::definition::{Definition, Metadata, SourceInfo, SourceMap};
use crate::json::{Object, object, string};

/// A graph with what is said about its steps.
pub fn definition(definition: &Definition) -> String {
    object(|o| body(o, definition))
}

pub(crate) fn body(o: &mut Object<'_>, definition: &Definition) {
    o.list("def", &definition.def, |out, op| string(out, &bytes(op)));
    if !definition.metadata.is_empty() {
        o.object("metadata", |o| {
            for (digest, metadata) in &definition.metadata {
                o.object(&digest.to_string(), |o| metadata_body(o, metadata));
            }
        });
    }
    if let Some(source) = &definition.source {
        o.object("Source", |o| source_body(o, source));
    }
}

fn metadata_body(o: &mut Object<'_>, metadata: &Metadata) {
    o.truth("ignore_cache", metadata.ignore_cache);
    if !metadata.description.is_empty() {
        o.object("description", |o| {
            for (key, text) in &metadata.description {
                o.always(key, text);
            }
        });
    }
    if let Some(export) = metadata.export_cache {
        o.object("export_cache", |o| o.truth("Value", export));
    }
    if !metadata.caps.is_empty() {
        o.object("caps", |o| {
            for (name, needed) in &metadata.caps {
                o.always_truth(name, *needed);
            }
        });
    }
    if let Some(group) = &metadata.progress_group {
        o.object("progress_group", |o| {
            o.text("id", &group.id);
            o.text("name", &group.name);
            o.truth("weak", group.weak);
        });
    }
    if let Some(resources) = &metadata.resources {
        o.object("linux_resources", |o| {
            o.number("memory", resources.memory);
            o.number("memorySwap", resources.memory_swap);
            o.number("cpuShares", resources.cpu_shares);
            o.number("cpuPeriod", resources.cpu_period);
            o.number("cpuQuota", resources.cpu_quota);
            o.text("cpusetCpus", &resources.cpuset_cpus);
            o.text("cpusetMems", &resources.cpuset_mems);
        });
    }
}

fn source_body(o: &mut Object<'_>, source: &SourceMap) {
    if !source.locations.is_empty() {
        o.object("locations", |o| {
            for (digest, locations) in &source.locations {
                o.object(&digest.to_string(), |o| locations_body(o, locations));
            }
        });
    }
    o.objects("infos", &source.infos, info_body);
}

fn info_body(o: &mut Object<'_>, info: &SourceInfo) {
    o.text("filename", &info.filename);
    o.bytes("data", &info.data);
    if let Some(definition) = &info.definition {
        o.object("definition", |o| body(o, definition));
    }
    o.text("language", &info.language);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::{Location, Position, ProgressGroup, Range, Resources};

    /// Rows: A16
    #[test]
    fn a_graph_reads_as_gos_own_types_want_it() {
        let digest = oci::Digest::of(b"step");
        let metadata = Metadata {
            ignore_cache: true,
            description: [("llb.customname".to_owned(), "a step".to_owned())].into(),
            export_cache: Some(true),
            caps: [("file.base".to_owned(), true), ("no".to_owned(), false)].into(),
            progress_group: Some(ProgressGroup {
                id: "g".to_owned(),
                ..ProgressGroup::default()
            }),
            resources: Some(Resources {
                memory: 64,
                cpuset_mems: "0".to_owned(),
                ..Resources::default()
            }),
        };
        let inner = Definition {
            def: vec!["in".into()],
            ..Definition::default()
        };
        let start = Position {
            line: 3,
            character: 1,
        };
        let location = Location {
            source: 0,
            ranges: vec![Range {
                start,
                end: Position::default(),
            }],
        };
        let info = SourceInfo {
            filename: "bar".to_owned(),
            data: "text".into(),
            definition: Some(Box::new(inner)),
            language: "mylang".to_owned(),
        };
        let graph = Definition {
            def: vec!["one".into(), "".into()],
            metadata: [(digest, metadata)].into(),
            source: Some(SourceMap {
                locations: [(digest, vec![location])].into(),
                infos: vec![info],
            }),
        };
        expect![[r#"{"def":["b25l",""],"metadata":{"sha256:3e64cc41cf8e07b43936d7bc4eaf8bdb8e2abcec1f44c7b915ac0a0c27ebc41a":{"ignore_cache":true,"description":{"llb.customname":"a step"},"export_cache":{"Value":true},"caps":{"file.base":true,"no":false},"progress_group":{"id":"g"},"linux_resources":{"memory":64,"cpusetMems":"0"}}},"Source":{"locations":{"sha256:3e64cc41cf8e07b43936d7bc4eaf8bdb8e2abcec1f44c7b915ac0a0c27ebc41a":{"locations":[{"ranges":[{"start":{"line":3,"character":1},"end":{}}]}]}},"infos":[{"filename":"bar","data":"dGV4dA==","definition":{"def":["aW4="]},"language":"mylang"}]}}"#]].assert_eq(&definition(&graph));
        assert_eq!(definition(&Definition::default()), "{}");
    }
}
