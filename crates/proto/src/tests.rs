//! The promises of the wire: numbers, JSON names, bytes that are not text.

use prost::Message as _;

use crate::details::{self, Detail, Position, Range, Source, SourceInfo};
use crate::fsutil::types::{Packet, Stat, Xattr};

/// Rows: A16
#[test]
fn error_details_are_json_under_go_names() {
    let range = Range {
        start: Position {
            line: 3,
            character: 0,
        },
        end: Position {
            line: 3,
            character: 0,
        },
    };
    let source = Detail::Source(Source {
        info: Some(SourceInfo {
            filename: "Dockerfile".into(),
            data: "FROM x".into(),
            language: "Dockerfile".into(),
            definition: Some(serde_json::json!({"def": ["eA=="]})),
        }),
        ranges: vec![range],
    });
    let any = source.to_any();
    assert_eq!(any.type_url, "github.com/moby/buildkit/errdefs.Source+json");
    assert_eq!(
        String::from_utf8(any.value.to_vec()).unwrap(),
        r#"{"info":{"filename":"Dockerfile","data":"RlJPTSB4","language":"Dockerfile","definition":{"def":["eA=="]}},"ranges":[{"start":{"line":3},"end":{"line":3}}]}"#
    );
    let status = details::status(
        tonic::Code::Unknown,
        "it broke",
        std::slice::from_ref(&source),
    );
    assert_eq!(details::of(&status), [source]);
}

/// Rows: A16
#[test]
fn an_unknown_or_broken_detail_is_kept() {
    for (url, value) in [
        ("github.com/moby/buildkit/errdefs.New+json", "{}"),
        ("github.com/moby/buildkit/errdefs.Source+json", "{"),
        ("type.googleapis.com/google.rpc.BadRequest", "x"),
    ] {
        let any = prost_types::Any {
            type_url: url.into(),
            value: value.into(),
        };
        assert_eq!(Detail::from_any(&any), Detail::Other(any));
    }
}

/// Rows: N04
#[test]
fn a_file_name_need_not_be_text() {
    let name = bytes::Bytes::from_static(b"a\xff/b");
    let stat = Stat {
        path: name.clone(),
        xattrs: vec![Xattr {
            key: "user.x".into(),
            value: "1".into(),
        }],
        ..Stat::default()
    };
    let bytes = Packet {
        stat: Some(stat.clone()),
        ..Packet::default()
    }
    .encode_to_vec();
    // Tag 10 of Stat with an entry of key 1, value 2: what a map looks like.
    assert!(
        bytes.ends_with(b"\x52\x0b\x0a\x06user.x\x12\x011"),
        "{bytes:?}"
    );
    let back = Packet::decode(&bytes[..]).unwrap();
    assert_eq!(back.stat, Some(stat));
}

/// Rows: A01, L14, L16
#[test]
fn the_newest_fields_have_their_numbers() {
    use prost_types::FileDescriptorSet;
    let set = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
    let number = |package: &str, message: &str, field: &str| {
        let file = set.file.iter().find(|f| {
            f.package() == package && f.message_type.iter().any(|m| m.name() == message)
        })?;
        let message = file.message_type.iter().find(|m| m.name() == message)?;
        message.field.iter().find(|f| f.name() == field)?.number
    };
    assert_eq!(
        number("moby.buildkit.v1", "SolveRequest", "CompatibilityVersion"),
        Some(16)
    );
    assert_eq!(
        number("moby.buildkit.v1", "SolveRequest", "ProxyNetwork"),
        Some(17)
    );
    assert_eq!(number("pb", "Op", "passthrough"), Some(8));
    assert_eq!(number("pb", "OpMetadata", "linux_resources"), Some(7));
    assert_eq!(number("pb", "Mount", "contentCache"), Some(24));
}

/// What a client that chose the exporters hears at the end, byte by byte as `session/exporter` has it.
///
/// Rows: E10
#[test]
fn the_end_of_an_export_is_told_in_field_one() {
    use crate::moby::exporter::v1::FinalizeExportRequest;
    let request = FinalizeExportRequest {
        exporter_response: [("k".to_owned(), "v".to_owned())].into(),
    };
    assert_eq!(request.encode_to_vec(), b"\x0a\x06\x0a\x01k\x12\x01v");
}
