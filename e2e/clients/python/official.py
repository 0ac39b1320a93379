"""The official client (`kubernetes`): typed and dynamic access, watches, streams, elections, custom resources."""

import datetime
import os
import tempfile
import threading
import time
import urllib.request
import uuid

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotUniqueError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

from steps import IMAGE, Steps, eventually, refused

steps = Steps("official")
NAMESPACE = steps.namespace


def container(*args, name="main", image=IMAGE):
    return client.V1Container(name=name, image=image, args=list(args))


def pod(name, *args, labels=None):
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels=labels),
        spec=client.V1PodSpec(containers=[container(*args)], termination_grace_period_seconds=1),
    )


@steps.step
def versions_and_discovery():
    assert client.VersionApi().get_code().major == "1"
    groups = {group.name for group in client.ApisApi().get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io", "metrics.k8s.io"} <= groups, groups
    assert client.CoreApi().get_api_versions().versions == ["v1"]
    names = {resource.name for resource in client.AppsV1Api().get_api_resources().resources}
    assert "deployments/scale" in names, names


@steps.step
def core_objects():
    core = client.CoreV1Api()
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "one"}, "data": {"a": "1"}})
    refused(409, core.create_namespaced_config_map, NAMESPACE, {"metadata": {"name": "one"}})
    read = core.read_namespaced_config_map("one", NAMESPACE)
    read.data["b"] = "2"
    stale = read.metadata.resource_version
    replaced = core.replace_namespaced_config_map("one", NAMESPACE, read)
    assert replaced.metadata.resource_version != stale
    assert "object has been modified" in refused(409, core.replace_namespaced_config_map, "one", NAMESPACE, read)
    patched = core.patch_namespaced_config_map("one", NAMESPACE, {"data": {"a": None}})
    assert patched.data == {"b": "2"}, patched.data
    core.patch_namespaced_config_map("one", NAMESPACE, [{"op": "replace", "path": "/data/b", "value": "3"}])
    assert core.read_namespaced_config_map("one", NAMESPACE).data == {"b": "3"}
    secret = core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    assert secret.data == {"k": "dg=="} and secret.type == "Opaque", secret
    service = core.create_namespaced_service(
        NAMESPACE, {"metadata": {"name": "front"}, "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}}
    )
    assert service.spec.cluster_ip.startswith("10.96."), service.spec.cluster_ip
    for number in range(5):
        core.create_namespaced_config_map(NAMESPACE, {"metadata": {"generateName": "page-", "labels": {"page": str(number)}}})
    first = core.list_namespaced_config_map(NAMESPACE, limit=2, label_selector="page")
    assert len(first.items) == 2 and first.metadata._continue and first.metadata.remaining_item_count in (3, None)
    rest = core.list_namespaced_config_map(NAMESPACE, label_selector="page", limit=9, _continue=first.metadata._continue)
    assert len(rest.items) == 3
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="page in (0,1,2)")
    assert len(core.list_namespaced_config_map(NAMESPACE, label_selector="page").items) == 2
    refused(404, core.read_namespaced_config_map, "none", NAMESPACE)
    refused(422, core.create_namespaced_config_map, NAMESPACE, {"metadata": {"name": "Not_A_Name"}})
    assert core.list_node().items and core.list_namespace(field_selector=f"metadata.name={NAMESPACE}").items
    token = core.create_namespaced_service_account_token(
        "default", NAMESPACE, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=["x"], expiration_seconds=600))
    )
    assert token.status.token.count(".") == 2


@steps.step
def workloads():
    apps = client.AppsV1Api()
    labels = {"app": "server"}
    apps.create_namespaced_deployment(
        NAMESPACE,
        client.V1Deployment(
            metadata=client.V1ObjectMeta(name="server"),
            spec=client.V1DeploymentSpec(
                replicas=1,
                selector=client.V1LabelSelector(match_labels=labels),
                template=client.V1PodTemplateSpec(
                    metadata=client.V1ObjectMeta(labels=labels),
                    spec=client.V1PodSpec(containers=[container("serve")], termination_grace_period_seconds=1),
                ),
            ),
        ),
    )
    ready = lambda n: apps.read_namespaced_deployment("server", NAMESPACE).status.ready_replicas == n
    eventually(lambda: ready(1))
    scale = apps.read_namespaced_deployment_scale("server", NAMESPACE)
    assert scale.spec.replicas == 1 and scale.status.selector == "app=server", scale
    apps.patch_namespaced_deployment_scale("server", NAMESPACE, {"spec": {"replicas": 2}})
    eventually(lambda: ready(2))
    sets = apps.list_namespaced_replica_set(NAMESPACE, label_selector="app=server").items
    assert len(sets) == 1 and sets[0].metadata.owner_references[0].kind == "Deployment"
    slices = client.DiscoveryV1Api()
    front = lambda: slices.list_namespaced_endpoint_slice(NAMESPACE, label_selector="kubernetes.io/service-name=front").items
    eventually(lambda: sum(len(one.endpoints or []) for one in front()) == 2)


@steps.step
def kept_objects():
    batch = client.BatchV1Api()
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": IMAGE, "args": ["echo", "done"]}]}}
    job = batch.create_namespaced_job(NAMESPACE, {"metadata": {"name": "once"}, "spec": {"suspend": True, "template": template}})
    assert job.spec.completions == 1 and job.spec.backoff_limit == 6, job.spec
    batch.delete_namespaced_job("once", NAMESPACE, propagation_policy="Background")
    batch.create_namespaced_cron_job(
        NAMESPACE, {"metadata": {"name": "often"}, "spec": {"schedule": "*/5 * * * *", "suspend": True, "jobTemplate": {"spec": {"template": template}}}}
    )
    refused(422, batch.create_namespaced_cron_job, NAMESPACE, {"metadata": {"name": "bad"}, "spec": {"schedule": "never", "jobTemplate": {"spec": {"template": template}}}})
    client.NetworkingV1Api().create_namespaced_ingress(
        NAMESPACE,
        {"metadata": {"name": "web"}, "spec": {"rules": [{"host": "a.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "front", "port": {"number": 80}}}}]}}]}},
    )
    scaler = client.AutoscalingV2Api().create_namespaced_horizontal_pod_autoscaler(
        NAMESPACE, {"metadata": {"name": "server"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "server"}}}
    )
    assert scaler.spec.min_replicas == 1
    client.AutoscalingV2Api().delete_namespaced_horizontal_pod_autoscaler("server", NAMESPACE)
    client.PolicyV1Api().create_namespaced_pod_disruption_budget(NAMESPACE, {"metadata": {"name": "p"}, "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "x"}}}})


@steps.step
def watches():
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    seen, follower = [], watch.Watch()

    def follow():
        for event in follower.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=start, timeout_seconds=20):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                follower.stop()

    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "watched"}})
    core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("watched", NAMESPACE)
    thread.join(25)
    assert seen == [("ADDED", "watched"), ("MODIFIED", "watched"), ("DELETED", "watched")], seen
    initial = [event["object"].metadata.name for event in watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, timeout_seconds=1)]
    assert "one" in initial, initial


@steps.step
def streams():
    core = client.CoreV1Api()
    core.create_namespaced_pod(NAMESPACE, pod("target", "serve"))
    eventually(lambda: core.read_namespaced_pod("target", NAMESPACE).status.phase == "Running")
    said = stream(core.connect_get_namespaced_pod_exec, "target", NAMESPACE, command=["/tool", "echo", "hello"], stdout=True, stderr=True)
    assert said == "hello\n", said
    shell = stream(
        core.connect_get_namespaced_pod_exec, "target", NAMESPACE, command=["/tool", "warn", "oh", ",", "exit", "3"],
        stdout=True, stderr=True, stdin=True, _preload_content=False,
    )
    shell.run_forever(timeout=10)
    assert shell.returncode == 3 and shell.read_stderr() == "oh\n", shell.returncode
    typed = stream(core.connect_get_namespaced_pod_exec, "target", NAMESPACE, command=["/tool", "upper"], stdout=True, stdin=True, _preload_content=False)
    typed.write_stdin("abc\n")
    line = typed.readline_stdout(timeout=10)
    assert line == "ABC", line
    typed.close()
    eventually(lambda: "listens on 8080" in core.read_namespaced_pod_log("target", NAMESPACE))
    assert core.read_namespaced_pod_log("target", NAMESPACE, tail_lines=1, timestamps=True).split("T")[0].count("-") == 2
    lines = core.read_namespaced_pod_log("target", NAMESPACE, _preload_content=False)
    assert b"listens" in lines.data
    forward = portforward(core.connect_get_namespaced_pod_portforward, "target", NAMESPACE, ports="8080")
    socket = forward.socket(8080)
    socket.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = b""
    while data := socket.recv(4096):
        answer += data
    socket.close()
    assert b"200 OK" in answer and forward.error(8080) is None, (answer, forward.error(8080))
    assert "target" in core.connect_get_namespaced_pod_proxy("target:8080", NAMESPACE)
    assert core.connect_get_namespaced_service_proxy("front:80", NAMESPACE)
    core.delete_namespaced_pod("target", NAMESPACE, grace_period_seconds=0)
    eventually(lambda: not core.list_namespaced_pod(NAMESPACE, field_selector="metadata.name=target").items)


def definition(plural):
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}},
                                               "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.py.example.com"},
        "spec": {"group": "py.example.com", "scope": "Namespaced", "names": {"plural": plural, "singular": plural[:-1], "kind": plural[:-1].capitalize()},
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]},
    }


@steps.step
def custom_resources():
    extensions, custom = client.ApiextensionsV1Api(), client.CustomObjectsApi()
    extensions.create_custom_resource_definition(definition("gears"))
    where = ("py.example.com", "v1", NAMESPACE, "gears")
    made = custom.create_namespaced_custom_object(*where, {"apiVersion": "py.example.com/v1", "kind": "Gear", "metadata": {"name": "a"}, "spec": {}})
    assert made["spec"] == {"size": 1}, made
    custom.patch_namespaced_custom_object_status(*where, "a", {"status": {"phase": "on"}})
    assert custom.get_namespaced_custom_object(*where, "a")["status"] == {"phase": "on"}
    assert len(custom.list_namespaced_custom_object(*where)["items"]) == 1
    refused(422, custom.patch_namespaced_custom_object, *where, "a", {"spec": {"size": "big"}})
    custom.delete_namespaced_custom_object(*where, "a")
    extensions.delete_custom_resource_definition("gears.py.example.com")


@steps.step
def dynamic_client():
    dynamo = dynamic.DynamicClient(client.ApiClient())
    maps = dynamo.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"a": "1"}}
    maps.create(body=body, namespace=NAMESPACE)
    applied = maps.server_side_apply(body=body, name="dyn", namespace=NAMESPACE, field_manager="dyn", force_conflicts=True)
    assert applied.metadata.managedFields[0].manager == "dyn" or len(applied.metadata.managedFields) == 2
    conflicting = {**body, "data": {"a": "2"}}
    try:
        maps.server_side_apply(body=conflicting, name="dyn", namespace=NAMESPACE, field_manager="other")
        raise AssertionError("no conflict")
    except ConflictError as error:
        assert "conflict" in error.summary().lower() and ".data.a" in error.summary(), error.summary()
    assert maps.get(name="dyn", namespace=NAMESPACE).data.a == "1"
    maps.patch(body={"metadata": {"labels": {"x": "y"}}}, name="dyn", namespace=NAMESPACE, content_type="application/merge-patch+json")
    assert len(maps.get(namespace=NAMESPACE, label_selector="x=y").items) == 1
    crds = dynamo.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    crds.create(body=definition("cogs"))
    dynamo.resources.invalidate_cache()
    cogs = dynamo.resources.get(api_version="py.example.com/v1", kind="Cog")
    cogs.create(body={"apiVersion": "py.example.com/v1", "kind": "Cog", "metadata": {"name": "c"}}, namespace=NAMESPACE)
    cogs.status.patch(body={"status": {"a": 1}}, name="c", namespace=NAMESPACE, content_type="application/merge-patch+json")
    first = next(iter(cogs.watch(namespace=NAMESPACE, timeout=5)))
    assert first["type"] == "ADDED" and first["object"].status.a == 1
    deployments = dynamo.resources.get(api_version="apps/v1", kind="Deployment")
    assert deployments.subresources["scale"].get(name="server", namespace=NAMESPACE).spec.replicas == 2
    maps.delete(name="dyn", namespace=NAMESPACE)
    try:
        maps.get(name="dyn", namespace=NAMESPACE)
        raise AssertionError("it is still there")
    except NotFoundError:
        pass
    crds.delete(name="cogs.py.example.com")


@steps.step
def manifests():
    text = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: from-yaml}}
- {apiVersion: v1, kind: Secret, metadata: {name: from-yaml}, stringData: {a: b}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: from-yaml}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
"""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        utils.create_from_yaml(client.ApiClient(), file.name, namespace=NAMESPACE)
        try:
            utils.create_from_yaml(client.ApiClient(), file.name, namespace=NAMESPACE)
            raise AssertionError("created twice")
        except utils.FailToCreateError as error:
            assert "AlreadyExists" in str(error)
    assert client.RbacAuthorizationV1Api().read_namespaced_role("from-yaml", NAMESPACE).rules[0].verbs == ["get"]


@steps.step
def leader_election():
    led, lost = threading.Event(), threading.Event()

    def lead():
        led.set()

    lock = LeaseLock("leader", NAMESPACE, "me-" + uuid.uuid4().hex)
    chosen = electionconfig.Config(lock, lease_duration=6, renew_deadline=4, retry_period=1, onstarted_leading=lead, onstopped_leading=lost.set)
    threading.Thread(target=leaderelection.LeaderElection(chosen).run, daemon=True).start()
    assert led.wait(15)
    lease = client.CoordinationV1Api().read_namespaced_lease("leader", NAMESPACE)
    assert lease.spec.holder_identity == lock.identity, lease.spec
    client.CoordinationV1Api().patch_namespaced_lease("leader", NAMESPACE, {"spec": {"holderIdentity": "another", "renewTime": datetime.datetime.now(datetime.timezone.utc).isoformat()}})
    assert lost.wait(30)


@steps.step
def reviews_and_metrics():
    review = client.AuthorizationV1Api().create_self_subject_access_review(
        {"spec": {"resourceAttributes": {"verb": "delete", "resource": "pods", "namespace": NAMESPACE}}}
    )
    assert review.status.allowed
    who = client.AuthenticationV1Api().create_self_subject_review({})
    assert who.status.user_info.username == "kubernetes-admin"
    nodes = client.CustomObjectsApi().list_cluster_custom_object("metrics.k8s.io", "v1beta1", "nodes")
    assert nodes["kind"] == "NodeMetricsList"


steps.run()
