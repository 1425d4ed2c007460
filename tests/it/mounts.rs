//! What RUN may mount, and steps that run side by side.

use std::fs;

use crate::harness::{BaseImage, Layout, Place, Ran};

/// Builds and gives the files of the image.
#[track_caller]
fn built(place: &Place, args: &[&str]) -> (Ran, std::collections::BTreeMap<String, String>) {
    let tar = place.path("image.tar");
    let output = format!("type=oci,dest={}", tar.display());
    let ran = place.build(&[&["-o", &*output], args].concat()).ok();
    let files = Layout::of_tar(&fs::read(&tar).expect("the image")).image_files();
    (ran, files)
}

/// Rows: C01, D28
#[test]
fn stages_that_do_not_need_each_other_run_at_the_same_time() {
    let place = Place::new();
    let base = BaseImage::name();
    // Each side waits for the other: one after the other would never end.
    place.context(&format!(
        "FROM {base} AS left\n\
         RUN --mount=type=cache,target=/meet touch /meet/left; for i in $(seq 300); do [ -e /meet/right ] && break; sleep 0.1; done; [ -e /meet/right ] && echo met > /l\n\
         FROM {base} AS right\n\
         RUN --mount=type=cache,target=/meet touch /meet/right; for i in $(seq 300); do [ -e /meet/left ] && break; sleep 0.1; done; [ -e /meet/left ] && echo met > /r\n\
         FROM {base}\n\
         COPY --from=left /l /l\n\
         COPY --from=right /r /r\n"
    ));
    let (_, files) = built(&place, &[]);
    assert_eq!((&*files["l"], &*files["r"]), ("met\n", "met\n"));
    place.assert_nothing_left();
}

/// Rows: X05, F23, L05
#[test]
fn secrets_come_as_files_and_variables_and_stay_out_of_image_and_state() {
    let place = Place::new();
    let base = BaseImage::name();
    let word = "correct-horse-battery";
    let file = place.write("token", word);
    place.context(&format!(
        "FROM {base}\n\
         RUN --mount=type=secret,id=tok [ \"$(cat /run/secrets/tok)\" = $(echo correct-horse)-battery ] && stat -c '%a %u' /run/secrets/tok > /mode\n\
         RUN --mount=type=secret,id=tok,env=TOK [ \"$TOK\" = $(echo correct-horse)-battery ] && echo yes > /env\n\
         RUN --mount=type=secret,id=tok,target=/s/t,mode=0444,uid=7 stat -c '%a %u' /s/t > /mode2\n\
         RUN ls /run/secrets /s 2>&1 | sort > /after; [ -z \"$TOK\" ]\n"
    ));
    let secret = format!("id=tok,src={}", file.display());
    let (ran, files) = built(&place, &["--secret", &secret]);
    assert_eq!(files["mode"], "400 0\n");
    assert_eq!(files["mode2"], "444 7\n");
    assert_eq!(files["env"], "yes\n");
    assert!(!ran.stderr.contains(word), "{ran}");
    assert_eq!(holding(&place.path("state"), word), Vec::<String>::new());
    let text =
        String::from_utf8_lossy(&fs::read(place.path("image.tar")).expect("it")).into_owned();
    assert!(!text.contains(word));

    let (ran, _) = built(&place, &[]);
    assert_eq!(ran.made().len(), 0, "secrets are no part of keys: {ran}");
    place.context(&format!(
        "FROM {base}\nRUN --mount=type=secret,id=no,required=true true\n"
    ));
    place
        .build(&[])
        .fails()
        .says(&["no", "secret", "Dockerfile:2"]);
    place.assert_nothing_left();
}

/// The files below `dir` that have these bytes.
fn holding(dir: &std::path::Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("it is there");
        if kind.is_dir() {
            found.extend(holding(&path, word));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes
                .windows(word.len())
                .any(|window| window == word.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// Rows: X03, F23, L05
#[test]
fn a_cache_mount_keeps_what_steps_put_there_and_images_do_not_have_it() {
    let place = Place::new();
    let base = BaseImage::name();
    let dockerfile = |round: u32| {
        format!(
            "FROM {base}\n\
             RUN --mount=type=cache,target=/c,id=mine echo {round} >> /c/log && cat /c/log > /seen\n\
             RUN --mount=type=cache,target=/c,id=other ls /c | wc -l > /other\n"
        )
    };
    place.context(&dockerfile(1));
    assert_eq!(built(&place, &[]).1["seen"], "1\n");
    place.context(&dockerfile(2));
    let (_, files) = built(&place, &[]);
    assert_eq!(files["seen"], "1\n2\n", "another process, the same cache");
    assert_eq!(files["other"], "0\n");
    assert!(!files.contains_key("c/log"), "{files:?}");
    place.assert_nothing_left();
}

/// Rows: X04, X02, F23
#[test]
fn bind_and_tmpfs_mounts_are_there_for_one_step() {
    let place = Place::new();
    let base = BaseImage::name();
    place.write("ctx/dir/a.txt", "a\n");
    place.context(&format!(
        "FROM {base} AS tool\nRUN echo tool > /tool\nFROM {base}\n\
         RUN --mount=type=bind,source=dir,target=/in cat /in/a.txt > /r1; echo no > /in/x 2>/dev/null && echo wrote > /r1; true\n\
         RUN --mount=from=tool,source=/tool,target=/t cat /t > /r2\n\
         RUN --mount=target=/in,rw echo new > /in/new && cat /in/new > /r3\n\
         RUN --mount=type=tmpfs,target=/t,size=1m dd if=/dev/zero of=/t/big bs=64k count=32 2>/dev/null; stat -c %s /t/big > /r4\n\
         RUN ls -d /in /t 2>&1 | grep -c 'No such' > /r5; true\n"
    ));
    let (_, files) = built(&place, &[]);
    assert_eq!(files["r1"], "a\n", "a bind mount is read-only");
    assert_eq!(files["r2"], "tool\n");
    assert_eq!(files["r3"], "new\n");
    assert_eq!(files["r4"], "1048576\n", "the size is a limit");
    assert_eq!(
        files["r5"], "2\n",
        "mount points that were made are removed again"
    );
    assert!(
        !place.path("ctx/new").exists(),
        "the context is not written to"
    );
    place.assert_nothing_left();
}

/// Rows: X07, X11, P11, F22
#[test]
fn the_network_is_what_the_step_asks_for() {
    let place = Place::new();
    let base = BaseImage::name();
    place.context(&format!(
        "FROM {base}\n\
         RUN --network=none ls /sys/class/net > /none\n\
         RUN --network=host ls /sys/class/net > /host\n\
         RUN grep -c build.example /etc/hosts > /hosts; hostname > /name\n"
    ));
    place.build(&[]).fails().says(&["network.host", "--allow"]);
    let args = ["--allow=network.host", "--add-host=build.example=10.1.2.3"];
    let (_, files) = built(&place, &args);
    assert_eq!(files["none"], "lo\n");
    let ours: Vec<String> = fs::read_dir("/sys/class/net")
        .expect("networks")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files["host"].lines().count(), ours.len(), "{ours:?}");
    assert_eq!(files["hosts"], "1\n");
    place.assert_nothing_left();
}

/// Rows: X09, X10, X12, P11
#[test]
fn a_step_has_only_the_rights_it_asked_for_and_was_given() {
    let place = Place::new();
    let base = BaseImage::name();
    place.context(&format!(
        "FROM {base}\n\
         RUN grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status > /default; mount -t tmpfs x /tmp 2>/dev/null && echo mounted >> /default; ulimit -n >> /default\n\
         RUN --security=insecure mkdir -p /m && mount -t tmpfs x /m && echo mounted > /insecure\n"
    ));
    place
        .build(&[])
        .fails()
        .says(&["security.insecure", "--allow"]);
    let (_, files) = built(
        &place,
        &["--allow=security.insecure", "--ulimit=nofile=1000:2000"],
    );
    assert!(
        files["default"].contains("CapEff:\t00000000a80425fb"),
        "{files:?}"
    );
    assert!(files["default"].contains("Seccomp:\t2"), "{files:?}");
    assert!(!files["default"].contains("mounted"), "{files:?}");
    assert!(files["default"].ends_with("\n1000\n"), "{files:?}");
    assert_eq!(files["insecure"], "mounted\n");
    place.assert_nothing_left();
}
