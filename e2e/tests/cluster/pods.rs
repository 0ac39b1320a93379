//! What runs in pods: configuration, init containers, probes, logs, exec.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use e2e::wait::{eventually, eventually_within};

use crate::{Stage, Test};

pub const TESTS: &[Test] = &[
    ("config_maps_and_secrets_reach_pods", configuration),
    ("pods_know_themselves", downward),
    ("init_containers_run_in_order", init_containers),
    ("a_sick_container_is_restarted", liveness),
    ("logs_of_now_and_before", logs),
    ("logs_are_followed", follow),
    ("exec_gives_the_exit_status", exec),
    ("a_failing_pod_says_so", failing),
    ("containers_share_volumes_and_users", volumes_and_users),
    ("a_missing_image_is_not_pulled", missing_image),
    ("attach_and_run", run_interactively),
];

fn configuration(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.ok(&[
        "create",
        "configmap",
        "settings",
        "--from-literal=colour=blue",
        "--from-literal=game.properties=lives=3",
    ])?;
    kubectl.ok(&["create", "secret", "generic", "login", "--from-literal=password=hunter2"])?;
    kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  containers:
    - name: reader
      image: orlop.dev/e2e-tool:v1
      args: [env, COLOUR, PASSWORD, SET_colour, FROM_IMAGE, MISSING, GREETING, ",", cat, /config/game.properties, ",", echo, ",", cat, /login/password, ",", echo, ",", cat, /all/colour, ",", echo, ",", cat, /all/secret/pass]
      env:
        - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
        - {name: MISSING, valueFrom: {configMapKeyRef: {name: nowhere, key: nothing, optional: true}}}
        - {name: GREETING, value: "hello $(COLOUR) $$(COLOUR) $(NOBODY)"}
      envFrom:
        - prefix: SET_
          configMapRef: {name: settings}
      volumeMounts:
        - {name: config, mountPath: /config}
        - {name: login, mountPath: /login, readOnly: true}
        - {name: all, mountPath: /all}
  volumes:
    - {name: config, configMap: {name: settings, items: [{key: game.properties, path: game.properties}]}}
    - {name: login, secret: {secretName: login, defaultMode: 0400}}
    - name: all
      projected:
        sources:
          - configMap: {name: settings}
          - secret: {name: login, items: [{key: password, path: secret/pass}]}
"#,
    )?;
    let log = kubectl.log_of_finished("reader")?;
    let wanted = "COLOUR=blue\nPASSWORD=hunter2\nSET_colour=blue\nFROM_IMAGE=yes\nMISSING=\n\
                  GREETING=hello blue $(COLOUR) $(NOBODY)\nlives=3\nhunter2\nblue\nhunter2";
    ensure!(log.trim_end() == wanted, "the pod read:\n{log}");
    // A pod that names what is not there waits, and says for what.
    kubectl.apply(&pod(
        "waiting",
        r#"args: [echo, hello], env: [{name: A, valueFrom: {secretKeyRef: {name: later, key: a}}}]"#,
    ))?;
    kubectl.until(
        "pod/waiting",
        "{.status.containerStatuses[0].state.waiting.reason}",
        "CreateContainerConfigError",
    )?;
    kubectl.ok(&["create", "secret", "generic", "later", "--from-literal=a=b"])?;
    kubectl.log_of_finished("waiting")?;
    Ok(())
}

/// A pod of one container that is not started again.
fn pod(name: &str, container: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, terminationGracePeriodSeconds: 1, \
         containers: [{{name: main, image: 'orlop.dev/e2e-tool:v1', {container}}}]}}}}"
    )
}

fn downward(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata:
  name: self
  labels: {tier: back, zone: north}
  annotations: {build: two}
spec:
  restartPolicy: Never
  hostname: skipper
  containers:
    - name: main
      image: orlop.dev/e2e-tool:v1
      args: [env, NAME, SPACE, NODE, ACCOUNT, ZONE, CPU, MEMORY, ",", cat, /info/labels, ",", echo, ",", cat, /info/annotations, ",", echo, ",", cat, /proc/sys/kernel/hostname, ",", cat, /etc/hosts]
      resources: {requests: {cpu: 50m}, limits: {memory: 64Mi}}
      env:
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
        - {name: ZONE, valueFrom: {fieldRef: {fieldPath: "metadata.labels['zone']"}}}
        - {name: CPU, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}
        - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
      volumeMounts: [{name: info, mountPath: /info}]
  volumes:
    - name: info
      downwardAPI:
        items:
          - {path: labels, fieldRef: {fieldPath: metadata.labels}}
          - {path: annotations, fieldRef: {fieldPath: metadata.annotations}}
"#,
    )?;
    let log = kubectl.log_of_finished("self")?;
    let node = kubectl.path("pod/self", "{.spec.nodeName}")?;
    for line in [
        "NAME=self".to_owned(),
        format!("SPACE={}", kubectl.namespace()),
        format!("NODE={node}"),
        "ACCOUNT=default".to_owned(),
        "ZONE=north".to_owned(),
        "CPU=50".to_owned(),
        "MEMORY=64".to_owned(),
        "tier=\"back\"".to_owned(),
        "build=\"two\"".to_owned(),
        "skipper".to_owned(),
    ] {
        ensure!(log.lines().any(|found| found == line), "no line {line:?} in:\n{log}");
    }
    ensure!(log.contains("127.0.0.1\tlocalhost"), "no hosts file:\n{log}");
    Ok(())
}

fn init_containers(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: staged}
spec:
  restartPolicy: Never
  initContainers:
    - {name: first, image: "orlop.dev/e2e-tool:v1", args: [sleep, "1", ",", write, /work/first, one], volumeMounts: [{name: work, mountPath: /work}]}
    - {name: second, image: "orlop.dev/e2e-tool:v1", args: [cat, /work/first, ",", write, /work/second, two], volumeMounts: [{name: work, mountPath: /work}]}
  containers:
    - {name: main, image: "orlop.dev/e2e-tool:v1", args: [cat, /work/first, /work/second], volumeMounts: [{name: work, mountPath: /work}]}
  volumes: [{name: work, emptyDir: {}}]
"#,
    )?;
    eventually("the first init container shows", || {
        let shown = kubectl.ok(&["get", "pod", "staged"])?;
        ensure!(shown.contains("Init:0/2") || shown.contains("Init:1/2"), "it shows {shown}");
        Ok(())
    })?;
    ensure!(kubectl.log_of_finished("staged")?.trim_end() == "onetwo");
    ensure!(kubectl.ok(&["logs", "staged", "-c", "second"])?.trim_end() == "one");
    kubectl.until(
        "pod/staged",
        "{.status.initContainerStatuses[*].state.terminated.reason}",
        "Completed Completed",
    )?;
    let shown = kubectl.ok(&["get", "pod", "staged"])?;
    ensure!(shown.contains("0/1") && shown.contains("Completed"), "it shows {shown}");
    Ok(())
}

fn liveness(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: orlop.dev/e2e-tool:v1
      args: [serve]
      startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 30}
      livenessProbe: {httpGet: {path: /healthy, port: 8080}, periodSeconds: 1, failureThreshold: 2}
      readinessProbe: {exec: {command: [/tool, has, /tmp/ready]}, periodSeconds: 1}
"#,
    )?;
    kubectl.until("pod/probed", "{.status.containerStatuses[0].started}", "true")?;
    ensure!(kubectl.path("pod/probed", "{.status.containerStatuses[0].ready}")? == "false");
    kubectl.ok(&["exec", "probed", "--", "/tool", "write", "/tmp/ready", "yes"])?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/probed", "--timeout=30s"])?;
    kubectl.ok(&["exec", "probed", "--", "/tool", "write", "/tmp/sick", "yes"])?;
    kubectl.until("pod/probed", "{.status.containerStatuses[0].restartCount}", "1")?;
    // The new container has a fresh file system: neither sick nor ready.
    kubectl.until("pod/probed", "{.status.containerStatuses[0].ready}", "false")?;
    eventually("the event of the probe", || {
        let events = kubectl.ok(&["events", "--for=pod/probed"])?;
        ensure!(events.contains("Liveness probe failed: HTTP probe failed with statuscode: 503"), "{events}");
        ensure!(events.contains("failed liveness probe, will be restarted"), "{events}");
        Ok(())
    })
}

fn logs(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: talker}, spec: {terminationGracePeriodSeconds: 1, \
         volumes: [{name: v, emptyDir: {}}], containers: [{name: main, image: 'orlop.dev/e2e-tool:v1', \
         volumeMounts: [{name: v, mountPath: /v}], \
         args: [count, '20', ',', has, /v/again, ',', echo, second, ',', sleep, '600']}]}}",
    )?;
    // The first run fails where it looks for the file, after it has counted.
    kubectl.until("pod/talker", "{.status.containerStatuses[0].lastState.terminated.exitCode}", "1")?;
    let previous = kubectl.ok(&["logs", "talker", "--previous"])?;
    ensure!(previous.lines().count() == 20 && previous.ends_with("line 20\n"), "previous: {previous}");
    let tail = kubectl.ok(&["logs", "talker", "--previous", "--tail=2"])?;
    ensure!(tail == "line 19\nline 20\n", "tail: {tail}");
    let bytes = kubectl.ok(&["logs", "talker", "--previous", "--limit-bytes=6"])?;
    ensure!(bytes == "line 1", "limited: {bytes}");
    let stamped = kubectl.ok(&["logs", "talker", "--previous", "--timestamps", "--tail=1"])?;
    let (stamp, text) = stamped.split_once(' ').unwrap_or_default();
    ensure!(text == "line 20\n" && stamp.ends_with('Z') && stamp.len() > 20, "stamped: {stamped}");
    ensure!(kubectl.ok(&["logs", "talker", "--since=1h", "--previous"])?.lines().count() == 20);
    let waiting = kubectl.fails(&["logs", "talker", "-c", "nobody"])?;
    ensure!(waiting.contains("container nobody is not valid for pod talker"), "{waiting}");
    Ok(())
}

fn follow(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(&pod(
        "slow",
        "args: [echo, one, ',', sleep, '2', ',', echo, two, ',', sleep, '1', ',', warn, three]",
    ))?;
    kubectl.ok(&[
        "wait",
        "--for=jsonpath={.status.containerStatuses[0].state.running}",
        "pod/slow",
        "--timeout=30s",
    ])?;
    let mut child = kubectl.command(&["logs", "-f", "slow"]).stdout(Stdio::piped()).spawn()?;
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    ensure!(status.success() && text == "one\ntwo\nthree\n", "{status}: {text}");
    Ok(())
}

fn exec(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(&pod("server", "args: [serve]"))?;
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/server", "--timeout=30s"])?;
    for _ in 0..10 {
        let output = kubectl
            .run(&["exec", "server", "--", "/tool", "echo", "out", ",", "warn", "err", ",", "exit", "7"])?;
        ensure!(output.code == 7, "{output:?}");
        ensure!(output.stdout == "out\n" && output.stderr.starts_with("err\n"), "{output:?}");
    }
    let upper = kubectl.ok_with(&["exec", "-i", "server", "--", "/tool", "upper"], "hello\nworld\n")?;
    ensure!(upper == "HELLO\nWORLD\n", "upper: {upper}");
    let long = kubectl.ok(&["exec", "server", "--", "/tool", "count", "50000"])?;
    ensure!(
        long.lines().count() == 50_000 && long.ends_with("line 50000\n"),
        "{} lines",
        long.lines().count()
    );
    let missing = kubectl.run(&["exec", "server", "--", "/nothing"])?;
    ensure!(missing.code != 0 && missing.stderr.contains("no such file"), "{missing:?}");
    let nobody = kubectl.fails(&["exec", "absent", "--", "/tool"])?;
    ensure!(nobody.contains("pods \"absent\" not found"), "{nobody}");
    Ok(())
}

fn failing(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(&pod("once", "args: [write, /dev/termination-log, it, was, me, ',', exit, '3']"))?;
    kubectl.until("pod/once", "{.status.phase}", "Failed")?;
    kubectl.until("pod/once", "{.status.containerStatuses[0].state.terminated.exitCode}", "3")?;
    kubectl.until("pod/once", "{.status.containerStatuses[0].state.terminated.message}", "it was me")?;
    let shown = kubectl.ok(&["get", "pod", "once"])?;
    ensure!(shown.contains("Error"), "it shows {shown}");
    kubectl.apply(&pod("again", "args: [exit, '1']").replace("Never", "Always"))?;
    eventually("CrashLoopBackOff shows", || {
        let shown = kubectl.ok(&["get", "pod", "again"])?;
        if shown.contains("CrashLoopBackOff") { Ok(()) } else { bail!("it shows {shown}") }
    })?;
    let described = kubectl.ok(&["describe", "pod", "again"])?;
    ensure!(described.contains("Back-off restarting failed container"), "{described}");
    Ok(())
}

fn volumes_and_users(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
    - {name: writer, image: "orlop.dev/e2e-tool:v1", args: [write, /shared/note, from writer, ",", sleep, "1"], volumeMounts: [{name: shared, mountPath: /shared}]}
    - name: reader
      image: orlop.dev/e2e-tool:v1
      args: [sleep, "1", ",", cat, /shared/note, ",", cat, /proc/self/status]
      securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: shared, mountPath: /shared, readOnly: true}]
  volumes: [{name: shared, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
"#,
    )?;
    eventually("the pod ends", || {
        ensure!(kubectl.path("pod/pair", "{.status.phase}")? == "Succeeded");
        Ok(())
    })?;
    let log = kubectl.ok(&["logs", "pair", "-c", "reader"])?;
    for part in
        ["from writer", "Uid:\t1000\t1000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        ensure!(log.contains(part), "no {part:?} in:\n{log}");
    }
    ensure!(log.lines().any(|line| line.starts_with("Groups:") && line.contains("2000")), "groups:\n{log}");
    let all = kubectl.ok(&["logs", "pair", "--all-containers", "--prefix"])?;
    ensure!(all.contains("[pod/pair/reader] "), "{all}");
    Ok(())
}

fn missing_image(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.apply(&pod("never", "imagePullPolicy: Never").replace("e2e-tool:v1", "nothing:v9"))?;
    kubectl.until("pod/never", "{.status.containerStatuses[0].state.waiting.reason}", "ErrImageNeverPull")?;
    ensure!(kubectl.ok(&["get", "pod", "never"])?.contains("ErrImageNeverPull"));
    eventually_within(Duration::from_secs(20), "the event", || {
        let events = kubectl.ok(&["get", "events", "--field-selector", "involvedObject.name=never"])?;
        ensure!(events.contains("is not present with pull policy of Never"), "{events}");
        Ok(())
    })
}

fn run_interactively(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let output = kubectl.run_with(
        &[
            "run",
            "typist",
            "--image=orlop.dev/e2e-tool:v1",
            "--restart=Never",
            "-i",
            "--rm",
            "--quiet",
            "--pod-running-timeout=30s",
            "--",
            "sleep",
            "1",
            ",",
            "upper",
        ],
        "typed\n",
    )?;
    ensure!(output.code == 0 && output.stdout.contains("TYPED"), "{output:?}");
    let gone = kubectl.fails(&["get", "pod", "typist"])?;
    ensure!(gone.contains("not found"), "{gone}");
    Ok(())
}
