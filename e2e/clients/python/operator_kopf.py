"""An operator written with `kopf`: it is really run, and its objects are made, changed and deleted.

Without an argument this is the test, which starts itself with the argument `operator`.
"""

import os
import subprocess
import sys
import tempfile

import kopf
from kubernetes import client

GROUP, VERSION, PLURAL = "kopf.example.com", "v1", "lamps"
WHERE = (GROUP, VERSION, PLURAL)


@kopf.on.startup()
def configure(settings, **_):
    settings.posting.level = 0
    settings.peering.name = "lamps"
    settings.peering.mandatory = True
    settings.persistence.finalizer = f"{GROUP}/finalizer"


@kopf.on.create(*WHERE)
@kopf.on.resume(*WHERE)
def create(spec, name, namespace, patch, **_):
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-child"}, "data": {"color": spec["color"]}}
    kopf.adopt(child)
    try:
        client.CoreV1Api().create_namespaced_config_map(namespace, child)
    except client.exceptions.ApiException as error:
        if error.status != 409:
            raise
    patch.status["phase"] = "lit"
    return {"color": spec["color"]}


@kopf.on.update(*WHERE, field="spec.color")
def recolor(old, new, name, namespace, body, retry, **_):
    if retry == 0:
        raise kopf.TemporaryError("once more", delay=0.1)
    client.CoreV1Api().patch_namespaced_config_map(f"{name}-child", namespace, {"data": {"color": new}})
    kopf.info(body, reason="Recolored", message=f"{old} became {new}")


@kopf.on.delete(*WHERE)
def delete(name, namespace, **_):
    client.CoreV1Api().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-gone"}})


@kopf.timer(*WHERE, interval=0.3)
def tick(status, patch, **_):
    if status.get("ticks", 0) < 3:
        patch.status["ticks"] = status.get("ticks", 0) + 1


@kopf.daemon(*WHERE)
async def shine(stopped, **_):
    print("the daemon began", flush=True)
    while not stopped:
        await stopped.wait(0.5)
    print("the daemon ended", flush=True)


@kopf.index("configmaps", annotations={"kopf.example.com/indexed": "yes"})
def colors(name, body, **_):
    return {name: dict(body.get("data", {}))}


@kopf.on.event("configmaps", annotations={"kopf.example.com/indexed": "yes"})
def seen(type, name, namespace, **_):
    print(f"indexed {name} {type}", flush=True)


def definition(group, version, plural, kind, scope):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": scope, "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
                 "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]},
    }


def test():
    from steps import Steps, eventually

    steps = Steps("kopf")
    namespace = steps.namespace
    core, custom, extensions = client.CoreV1Api(), client.CustomObjectsApi(), client.ApiextensionsV1Api()
    log = tempfile.NamedTemporaryFile("w+", suffix=".log")
    running = []
    lamps = (GROUP, VERSION, namespace, PLURAL)
    status = lambda: custom.get_namespaced_custom_object(*lamps, "a").get("status", {})
    color = lambda: core.read_namespaced_config_map("a-child", namespace).data["color"]
    said = lambda words: words in open(log.name).read()

    @steps.step
    def start():
        for made in [definition("kopf.dev", "v1", "clusterkopfpeerings", "ClusterKopfPeering", "Cluster"),
                     definition("kopf.dev", "v1", "kopfpeerings", "KopfPeering", "Namespaced"),
                     definition(GROUP, VERSION, PLURAL, "Lamp", "Namespaced")]:
            extensions.create_custom_resource_definition(made)
        peering = {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": {"name": "lamps"}}
        custom.create_namespaced_custom_object("kopf.dev", "v1", namespace, "kopfpeerings", peering)
        custom.create_namespaced_custom_object(*lamps, {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Lamp", "metadata": {"name": "a"}, "spec": {"color": "red"}})
        command = [sys.executable, "-m", "kopf", "run", __file__, "--namespace", namespace, "--verbose"]
        running.append(subprocess.Popen(command, stdout=log, stderr=log))

    @steps.step
    def created():
        eventually(lambda: status().get("phase") == "lit")
        assert status()["create"] == {"color": "red"}, status()
        child = core.read_namespaced_config_map("a-child", namespace)
        assert child.metadata.owner_references[0].kind == "Lamp" and color() == "red"
        assert custom.get_namespaced_custom_object(*lamps, "a")["metadata"]["finalizers"] == [f"{GROUP}/finalizer"]

    @steps.step
    def peered():
        peers = lambda: custom.get_namespaced_custom_object("kopf.dev", "v1", namespace, "kopfpeerings", "lamps").get("status")
        eventually(peers)
        assert all(peer["priority"] == 0 for peer in peers().values()), peers()

    @steps.step
    def timers_and_daemons():
        eventually(lambda: status().get("ticks") == 3 and said("the daemon began"))

    @steps.step
    def updated():
        custom.patch_namespaced_custom_object(*lamps, "a", {"spec": {"color": "blue"}})
        eventually(lambda: color() == "blue")
        events = lambda: [event.reason for event in core.list_namespaced_event(namespace, field_selector="involvedObject.name=a").items]
        eventually(lambda: "Recolored" in events())

    @steps.step
    def indexed():
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "i", "annotations": {"kopf.example.com/indexed": "yes"}}})
        eventually(lambda: said("indexed i ADDED"))
        core.delete_namespaced_config_map("i", namespace)
        eventually(lambda: said("indexed i DELETED"))

    @steps.step
    def deleted():
        custom.delete_namespaced_custom_object(*lamps, "a")
        eventually(lambda: not custom.list_namespaced_custom_object(*lamps)["items"])
        assert core.read_namespaced_config_map("a-gone", namespace) and said("the daemon ended")
        eventually(lambda: not core.list_namespaced_config_map(namespace, field_selector="metadata.name=a-child").items)

    @steps.step
    def stop():
        running[0].terminate()
        assert running[0].wait(30) == 0, open(log.name).read()[-4000:]
        assert not said("Traceback"), open(log.name).read()[-4000:]
        for name in [f"{PLURAL}.{GROUP}", "kopfpeerings.kopf.dev", "clusterkopfpeerings.kopf.dev"]:
            extensions.delete_custom_resource_definition(name)

    def clean_up():
        for process in running:
            process.kill()
        if steps.failed:
            print(open(log.name).read()[-6000:])

    steps.run(together=True, finally_=clean_up)


if __name__ == "__main__":
    test()
else:
    from kubernetes import config

    config.load_kube_config()
