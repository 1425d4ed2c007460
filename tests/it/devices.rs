//! `RUN --device`: devices by name, as vendors describe them.

use std::fs;

use crate::harness::{BaseImage, Daemon, Layout, Place};

const SPEC: &str = r#"
cdiVersion: "0.6.0"
kind: "kiln.test/log"
containerEdits:
  env: ["DRIVER=there"]
devices:
- name: kernel
  containerEdits:
    env: ["LOG=/dev/kiln/log"]
    deviceNodes:
    - {path: /dev/kiln/log, hostPath: /dev/null, permissions: rw, fileMode: 0640}
    mounts:
    - {hostPath: /etc/hostname, containerPath: /opt/driver, options: [ro, nosuid, bind]}
- name: other
  annotations:
    org.mobyproject.buildkit.device.autoallow: true
  containerEdits:
    env: ["OTHER=1"]
"#;

fn settings(place: &Place, more: &str) -> String {
    place.write("cdi/log.yaml", SPEC);
    format!("{more}\n[cdi]\nspecDirs = [{:?}]\n", place.path("cdi"))
}

/// Rows: X13, F07, F30, P11, L03, A06, V16
#[test]
fn a_step_uses_the_devices_it_may_and_no_others() {
    let place = Place::new();
    let base = BaseImage::name();
    let settings = settings(&place, "insecure-entitlements = ['device']");
    let daemon = Daemon::start(&place, &settings);
    place.context(&format!(
        "FROM {base}\n\
         RUN --device=kiln.test/log=kernel echo \"$DRIVER $LOG\" > /env && stat -c '%F %a %t:%T' $LOG > /node && echo x > $LOG && [ -s /opt/driver ] && (! echo x > /opt/driver) 2>/dev/null\n\
         RUN --device=kiln.test/log=other echo \"$DRIVER $LOG $OTHER\" > /other; ls /dev/kiln /opt/driver 2>&1 | wc -l >> /other\n\
         RUN --device=kiln.test/none echo \"optional $DRIVER\" > /none\n"
    ));
    let refused = daemon.build(&[]).fails();
    refused.says(&["device kiln.test/log=kernel is requested by the build but not allowed"]);
    let tar = place.path("image.tar");
    let output = format!("type=oci,dest={}", tar.display());
    daemon.build(&["--allow", "device", "-o", &output]).ok();
    let files = Layout::of_tar(&fs::read(&tar).expect("the image")).image_files();
    assert_eq!(files["env"], "there /dev/kiln/log\n");
    assert_eq!(files["node"], "character special file 640 1:3\n");
    assert_eq!(files["other"], "there  1\n2\n");
    assert_eq!(files["none"], "optional \n");
    // One device alone, by its name and by another.
    place.context(&format!(
        "FROM {base}\nRUN --device=kiln.test/log=kernel,required echo $LOG\n"
    ));
    daemon
        .build(&["--allow", "device=kiln.test/log=kernel"])
        .ok();
    place.context(&format!(
        "FROM {base}\nRUN --device=my.own/one,required echo aliased $LOG\n"
    ));
    let alias = "device=kiln.test/log=kernel,alias=my.own/one";
    daemon
        .build(&["--allow", alias])
        .ok()
        .says(&["/dev/kiln/log"]);
    place.context(&format!(
        "FROM {base}\nRUN --device=kiln.test/no,required true\n"
    ));
    let missing = daemon.build(&["--allow", "device"]).fails();
    missing.says(&["kiln.test/no", "it is not registered on this host"]);
    daemon.stop();
    place.assert_nothing_left();
}

/// Rows: X13, P11, D05
#[test]
fn a_daemon_gives_no_device_it_was_not_told_to() {
    let place = Place::new();
    let base = BaseImage::name();
    place.context(&format!(
        "FROM {base}\nRUN --device=kiln.test/log=kernel,required echo $LOG\n"
    ));
    // Unless it names some, it leaves the choice to its clients, who have to make it.
    let daemon = Daemon::start(&place, &settings(&place, ""));
    let refused = daemon.build(&[]).fails();
    refused.says(&["kiln.test/log=kernel", "--allow device"]);
    daemon.stop();
    let another = "insecure-entitlements = ['device=kiln.test/other']\n";
    let daemon = Daemon::start(&place, &(another.to_owned() + &settings(&place, "")));
    for asked in ["device", "device=kiln.test/log=kernel"] {
        let refused = daemon.build(&["--allow", asked]).fails();
        let says = format!("entitlement {asked} is not allowed by build daemon configuration");
        refused.says(&[says.as_str()]);
    }
    daemon.stop();
    let settings = settings(&place, "") + "autoAllowed = ['kiln.test/log=kernel']\n";
    let daemon = Daemon::start(&place, &settings);
    daemon.build(&[]).ok().says(&["/dev/kiln/log"]);
    daemon.stop();
    let daemon = Daemon::start(&place, "[cdi]\ndisabled = true\n");
    place.context(&format!(
        "FROM {base}\nRUN --device=kiln.test/log=kernel,required echo again $LOG\n"
    ));
    daemon
        .build(&[])
        .fails()
        .says(&["it is not registered on this host"]);
    daemon.stop();
    place.assert_nothing_left();
}
