//! Keyrings: several copies of a key, revocations hidden or unreadable, more than anybody has.

use super::*;

fn keyring(packets: &[Vec<u8>]) -> String {
    armored("PGP PUBLIC KEY BLOCK", &packets.concat())
}

fn said_of_key(secret: &Secret) -> Vec<u8> {
    framed_key(&key(secret))
}

fn revocation() -> Draft {
    draft(0x20).at(NOW)
}

/// A subkey with these signatures of the primary key.
fn subkey(primary: &Secret, subkey: &Secret, drafts: &[Draft]) -> Vec<u8> {
    let said = said_of_subkey(primary, subkey);
    let signed = drafts
        .iter()
        .flat_map(|draft| packet(2, &draft.sign(primary, &said)));
    packet(14, &key(subkey)).into_iter().chain(signed).collect()
}

/// What binds a subkey that may sign.
fn binding(primary: &Secret, subkey: &Secret, back: &Draft) -> Draft {
    let back = back.sign(subkey, &said_of_subkey(primary, subkey));
    let signing = draft(0x18).at(MADE).with(subpacket(27, &[2]));
    signing.with(subpacket(32, &back))
}

/// Rows: S16, S17
#[test]
fn an_older_copy_of_a_key_does_not_win() {
    let secret = ed25519(1);
    let signed = signature(&secret, &draft(0));
    let primary = packet(6, &key(&secret));
    let good = [primary.clone(), name(&secret, &usual())].concat();
    let revoked = revocation().sign(&secret, &said_of_key(&secret));
    let revoked = [
        primary.clone(),
        packet(2, &revoked),
        name(&secret, &usual()),
    ]
    .concat();
    let ended = usual().at(MADE + 5).with(time(9, 10));
    let ended = [primary.clone(), name(&secret, &ended)].concat();
    let nameless = draft(0x30).at(NOW).sign(&secret, &said_of_name(&secret));
    let nameless = [primary, packet(13, b"name"), packet(2, &nameless)].concat();
    assert_eq!(
        check(&signed, &keyring(&[good.clone(), good.clone()])),
        Ok(())
    );
    for (copy, reason) in [
        (revoked, "key revoked"),
        (ended, "key expired at"),
        (nameless, "no name"),
    ] {
        for both in [[good.clone(), copy.clone()], [copy.clone(), good.clone()]] {
            refused(check(&signed, &keyring(&both)), reason);
            let blocks = both.map(|one| keyring(&[one])).concat();
            refused(check(&signed, &blocks), reason);
        }
    }
}

/// Rows: S16, S17
#[test]
fn a_subkey_or_name_that_is_there_twice_is_one() {
    let (primary, sub) = (ed25519(1), ed25519(2));
    let signed = signature(&sub, &draft(0));
    let bind = binding(&primary, &sub, &draft(0x19).at(MADE));
    let good = subkey(&primary, &sub, std::slice::from_ref(&bind));
    let revoked = subkey(&primary, &sub, &[bind.clone(), draft(0x28).at(NOW)]);
    let ended = bind.clone().at(MADE + 5).with(time(9, 10));
    let ended = subkey(&primary, &sub, &[ended]);
    assert_eq!(check(&signed, &certificate(&primary, &good)), Ok(()));
    for (other, reason) in [(revoked, "key revoked"), (ended, "key expired at")] {
        for both in [[&good[..], &other].concat(), [&other[..], &good].concat()] {
            refused(check(&signed, &certificate(&primary, &both)), reason);
        }
    }
    // The second time the name is taken back.
    let signed = signature(&primary, &draft(0));
    let back = draft(0x30).at(NOW).sign(&primary, &said_of_name(&primary));
    let back = [packet(13, b"name"), packet(2, &back)].concat();
    refused(check(&signed, &certificate(&primary, &back)), "no name");
    // A subkey of two keys, one of which took it back.
    let other = ed25519(3);
    let bound = binding(&other, &sub, &draft(0x19).at(MADE));
    let taken = subkey(&other, &sub, &[bound, draft(0x28).at(NOW)]);
    let both = [certificate(&primary, &good), certificate(&other, &taken)];
    let signed = signature(&sub, &draft(0));
    refused(check(&signed, &both.concat()), "key revoked");
}

/// Rows: S16, S17
#[test]
fn a_revocation_that_cannot_be_read_is_one() {
    let (primary, sub) = (ed25519(1), ed25519(2));
    let said = said_of_key(&primary);
    let by_primary = signature(&primary, &draft(0));
    let with = |body: &[u8]| {
        let name = name(&primary, &usual());
        keyring(&[packet(6, &key(&primary)), packet(2, body), name])
    };
    let sha224 = revocation().hash(11).sign(&primary, &said);
    let mut anonymous = revocation().hash(11);
    anonymous.with_issuer = false;
    let anonymous = anonymous.sign(&primary, &said);
    let critical = revocation().with(subpacket(0x80 | 99, b"x"));
    let critical = critical.sign(&primary, &said);
    let id = &fingerprint(&key(&primary))[12..];
    let third = [&[3, 5, 0x20, 0, 0, 0, 1][..], id, &[1, 1, 0, 0]].concat();
    let mut sixth = revocation().sign(&primary, &said);
    sixth[0] = 6;
    for body in [&sha224, &anonymous, &critical, &third, &sixth] {
        refused(check(&by_primary, &with(body)), "key revoked");
    }
    // It names nobody, and is read and checked.
    let mut nobodys = revocation();
    nobodys.with_issuer = false;
    let right = nobodys.sign(&primary, &said);
    refused(check(&by_primary, &with(&right)), "key revoked");
    let wrong = nobodys.sign(&sub, &said);
    assert_eq!(check(&by_primary, &with(&wrong)), Ok(()));
    // Somebody else's says nothing of this key.
    let others = revocation().hash(11).sign(&sub, &said);
    assert_eq!(check(&by_primary, &with(&others)), Ok(()));
    let third = [&[3, 5, 0x20, 0, 0, 0, 1][..], &[7; 8], &[1, 1, 0, 0]].concat();
    assert_eq!(check(&by_primary, &with(&third)), Ok(()));
    // Of a subkey: that one is gone, and the key is not.
    let bind = binding(&primary, &sub, &draft(0x19).at(MADE));
    let keys = subkey(&primary, &sub, &[bind, draft(0x28).at(NOW).hash(11)]);
    let keys = certificate(&primary, &keys);
    refused(check(&signature(&sub, &draft(0)), &keys), "key revoked");
    assert_eq!(check(&by_primary, &keys), Ok(()));
}

/// As with gpg: who says that a name is not the key's any more says nothing against the key.
///
/// Rows: S16, S17
#[test]
fn a_name_stays_when_what_takes_it_back_cannot_be_read() {
    let (primary, other) = (ed25519(1), ed25519(2));
    let signed = signature(&primary, &draft(0));
    let taken_back = draft(0x30).at(NOW);
    let said = said_of_name(&primary);
    let with = |body: &[u8]| certificate(&primary, &packet(2, body));
    let right = taken_back.sign(&primary, &said);
    refused(check(&signed, &with(&right)), "no name");
    let unknown_hash = taken_back.clone().hash(11).sign(&primary, &said);
    let critical = taken_back.clone().with(subpacket(0x80 | 99, b"x"));
    let critical = critical.sign(&primary, &said);
    let mut sixth = right.clone();
    sixth[0] = 6;
    let others = taken_back.sign(&other, &said);
    for body in [&unknown_hash, &critical, &sixth, &others] {
        assert_eq!(check(&signed, &with(body)), Ok(()));
    }
}

/// Rows: S16, S17
#[test]
fn a_revocation_is_found_wherever_it_lies() {
    let secret = ed25519(1);
    let signed = signature(&secret, &draft(0));
    let revoked = revocation().sign(&secret, &said_of_key(&secret));
    let revoked = packet(2, &revoked);
    let (primary, name) = (packet(6, &key(&secret)), name(&secret, &usual()));
    for unknown in [12, 20, 60, 63] {
        let hidden = packet(unknown, b"whatever");
        let keys = [primary.clone(), hidden, revoked.clone(), name.clone()];
        refused(check(&signed, &keyring(&keys)), "key revoked");
    }
    let late = [primary, name, revoked.clone()];
    refused(check(&signed, &keyring(&late)), "key revoked");
    // As `gpg --gen-revoke` writes it, beside the key it is about.
    let alone = keyring(&[revoked]);
    let own = certificate(&secret, b"");
    for keys in [
        alone.clone(),
        format!("{alone}{own}"),
        format!("{own}{alone}"),
    ] {
        refused(check(&signed, &keys), "without the key it is about");
    }
}

/// Rows: S16, S17
#[test]
fn a_key_ends_by_whatever_it_says_of_itself() {
    let (primary, sub) = (ed25519(1), ed25519(2));
    let signed = signature(&primary, &draft(0));
    let with = |drafts: &[Draft]| {
        let mut keys = vec![packet(6, &key(&primary))];
        let said = said_of_key(&primary);
        keys.extend(
            drafts
                .iter()
                .map(|one| packet(2, &one.sign(&primary, &said))),
        );
        keys.push(name(&primary, &usual()));
        keyring(&keys)
    };
    let ending = draft(0x1f).at(MADE + 1).with(time(9, 10));
    assert_eq!(check(&signed, &with(&[draft(0x1f).at(MADE)])), Ok(()));
    refused(
        check(&signed, &with(std::slice::from_ref(&ending))),
        "key expired at",
    );
    // The newest word counts.
    let renewed = [draft(0x1f).at(MADE + 2).with(time(9, NOW)), ending.clone()];
    assert_eq!(check(&signed, &with(&renewed)), Ok(()));
    let by_another = ending.sign(&sub, &said_of_key(&primary));
    let keys = [
        packet(6, &key(&primary)),
        packet(2, &by_another),
        name(&primary, &usual()),
    ];
    assert_eq!(check(&signed, &keyring(&keys)), Ok(()));
    // The subkey's own word ends, too.
    let signed = signature(&sub, &draft(0));
    let back = draft(0x19).at(MADE);
    let keys = |back: &Draft| {
        let bind = binding(&primary, &sub, back);
        certificate(&primary, &subkey(&primary, &sub, &[bind]))
    };
    assert_eq!(check(&signed, &keys(&back)), Ok(()));
    let short = back.with(time(3, 10));
    refused(check(&signed, &keys(&short)), "key expired at");
}

/// Rows: S16, S17
#[test]
fn keyrings_cost_no_more_than_keys_of_people_do() {
    let (secret, other) = (ed25519(1), ed25519(2));
    let signed = signature(&secret, &draft(0));
    let words = |by: &Secret, count: u64| {
        let said = said_of_name(by);
        let one = |at| packet(2, &usual().at(MADE + at).sign(by, &said));
        let name = [packet(13, b"name"), (0..count).flat_map(one).collect()].concat();
        [packet(6, &key(by)), name].concat()
    };
    let many = words(&secret, 1001);
    refused(
        check(&signed, &keyring(&[many])),
        "more than 1000 signatures",
    );
    assert_eq!(check(&signed, &keyring(&[words(&secret, 1000)])), Ok(()));
    // The same again is not checked again, and other keys are not asked.
    let twice = [
        words(&secret, 900),
        words(&secret, 900),
        words(&other, 1001),
    ];
    assert_eq!(check(&signed, &keyring(&twice)), Ok(()));
    // A name of many pages is none.
    let long = vec![b'x'; (4 << 10) + 1];
    let length = u32::try_from(long.len()).unwrap().to_be_bytes();
    let said = [&said_of_key(&secret)[..], &[0xb4], &length, &long].concat();
    let word = usual().sign(&secret, &said);
    let keys = [
        packet(6, &key(&secret)),
        packet(13, &long),
        packet(2, &word),
    ];
    refused(check(&signed, &keyring(&keys)), "no name");
}
