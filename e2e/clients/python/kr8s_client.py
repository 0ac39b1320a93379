"""`kr8s`: objects with methods, synchronous and asynchronous, watches, waits, commands and forwarded ports."""

import asyncio
import urllib.request

import kr8s
import kr8s.asyncio
from kr8s.objects import ConfigMap, CustomResourceDefinition, Deployment, Node, Pod, Service, new_class

from steps import IMAGE, Steps, eventually

steps = Steps("kr8s")
NAMESPACE = steps.namespace


def meta(name, **more):
    return {"metadata": {"name": name, "namespace": NAMESPACE, **more}}


def server(name):
    spec = {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": IMAGE, "args": ["serve"], "ports": [{"containerPort": 8080}]}]}
    return {**meta(name, labels={"app": name}), "spec": spec}


@steps.step
def discovery():
    api = kr8s.api()
    assert kr8s.version()["major"] == "1"
    kinds = {resource["kind"] for resource in api.api_resources()}
    assert {"Pod", "Deployment", "CustomResourceDefinition"} <= kinds
    assert api.whoami() == "kubernetes-admin"
    assert list(kr8s.get("nodes"))


@steps.step
def objects():
    one = ConfigMap({**meta("one"), "data": {"a": "1"}})
    one.create()
    assert one.exists()
    one.patch({"data": {"b": "2"}})
    one.patch([{"op": "remove", "path": "/data/a"}], type="json")
    one.refresh()
    assert dict(one.data) == {"b": "2"}, one.data
    one.label(color="red")
    one.annotate({"example.com/a": "b"})
    assert [found.name for found in kr8s.get("configmaps", namespace=NAMESPACE, label_selector={"color": "red"})] == ["one"]
    assert one.annotations["example.com/a"] == "b"
    one.delete()
    eventually(lambda: not one.exists())
    try:
        one.refresh()
        raise AssertionError("it is still there")
    except kr8s.NotFoundError:
        pass


@steps.step
def pods():
    pod = Pod(server("target"))
    pod.create()
    pod.wait("condition=Ready", timeout=60)
    assert pod.ready()
    done = pod.exec(["/tool", "echo", "hello"])
    assert done.stdout == b"hello\n" and done.returncode == 0, done
    failed = pod.exec(["/tool", "warn", "oh", ",", "exit", "3"], check=False)
    assert failed.returncode == 3 and failed.stderr == b"oh\n", failed
    eventually(lambda: any("listens" in line for line in pod.logs()))
    service = Service({**meta("front"), "spec": {"selector": {"app": "target"}, "ports": [{"port": 80, "targetPort": 8080}]}})
    service.create()
    eventually(lambda: [ready.name for ready in service.ready_pods()] == ["target"])
    assert service.proxy_http_get("/", port=80).text.startswith("target")
    with pod.portforward(remote_port=8080, local_port="auto") as port:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().startswith(b"target")
    pod.delete(grace_period=0)
    pod.wait("delete", timeout=30)


@steps.step
def workloads():
    web = Deployment(
        {**meta("web"), "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": server("web")["spec"]}}}
    )
    web.create()
    web.wait("condition=Available", timeout=60)
    web.scale(2)
    eventually(lambda: (web.refresh() or web.status.get("readyReplicas")) == 2)
    assert len(web.pods()) == 2
    node = next(iter(Node.list()))
    node.cordon()
    node.refresh()
    assert node.unschedulable
    node.uncordon()
    web.delete(propagation_policy="Foreground")
    eventually(lambda: not web.exists())


@steps.step
def custom_resources():
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    definition = CustomResourceDefinition(
        {"metadata": {"name": "wheels.kr8s.example.com"},
         "spec": {"group": "kr8s.example.com", "scope": "Namespaced", "names": {"plural": "wheels", "singular": "wheel", "kind": "Wheel", "shortNames": ["wh"]},
                  "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
                                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}}}]}}
    )
    definition.create()
    definition.wait("condition=Established", timeout=10)
    Wheel = new_class(kind="Wheel", version="kr8s.example.com/v1", namespaced=True, plural="wheels", scalable=True, scalable_spec="size")
    wheel = Wheel({**meta("w"), "spec": {"size": 1}})
    wheel.create()
    wheel.scale(3)
    wheel.patch({"status": {"size": 3}}, subresource="status")
    wheel.refresh()
    assert wheel.spec.size == 3 and wheel.status.size == 3
    assert [found.name for found in kr8s.get("wh", namespace=NAMESPACE)] == ["w"]
    wheel.delete()
    definition.delete()


@steps.step
def asynchronous_watch():
    async def watch():
        api = await kr8s.asyncio.api()
        seen = []
        watched = await kr8s.asyncio.objects.ConfigMap(meta("watched"), api=api)

        async def follow():
            async for event, found in api.watch("configmaps", namespace=NAMESPACE):
                if found.name == "watched":
                    seen.append(event)
                if event == "DELETED":
                    return

        follower = asyncio.create_task(follow())
        await asyncio.sleep(0.5)
        await watched.create()
        await watched.patch({"data": {"a": "b"}})
        await watched.delete()
        await asyncio.wait_for(follower, 20)
        return seen

    seen = asyncio.run(watch())
    assert seen == ["ADDED", "MODIFIED", "DELETED"], seen


steps.run()
