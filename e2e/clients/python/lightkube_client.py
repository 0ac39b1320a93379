"""`lightkube`: typed objects, apply with field ownership, subresources, watches, waits, custom resources."""

import asyncio

from lightkube import ApiError, AsyncClient, Client, codecs
from lightkube.generic_resource import create_namespaced_resource, load_in_cluster_generic_resources
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.operators import in_, not_exists
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import CascadeType, PatchType

from steps import IMAGE, Steps, eventually

steps = Steps("lightkube")
NAMESPACE = steps.namespace
kube = Client(namespace=NAMESPACE, field_manager="lightkube")


def settings(name, data, **meta):
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=NAMESPACE, **meta), data=data)


@steps.step
def objects():
    one = kube.create(settings("one", {"a": "1"}, labels={"page": "1"}))
    one.data["b"] = "2"
    stale = one.metadata.resourceVersion
    assert kube.replace(one).metadata.resourceVersion != stale
    try:
        kube.replace(one)
        raise AssertionError("a stale write was taken")
    except ApiError as error:
        assert error.status.code == 409 and error.status.reason == "Conflict", error.status
    kube.patch(ConfigMap, "one", {"data": {"a": None}})
    kube.patch(ConfigMap, "one", {"data": {"c": "3"}}, patch_type=PatchType.MERGE)
    kube.patch(ConfigMap, "one", [{"op": "remove", "path": "/data/c"}], patch_type=PatchType.JSON)
    assert kube.get(ConfigMap, "one").data == {"b": "2"}
    for number in range(4):
        kube.create(settings(None, {}, generateName="page-", labels={"page": "2"}))
    assert len(list(kube.list(ConfigMap, chunk_size=2, labels={"page": in_(["1", "2"])}))) == 5
    every = kube.list(ConfigMap)
    assert list(every) and every.resourceVersion
    assert "one" not in [found.metadata.name for found in kube.list(ConfigMap, labels={"page": not_exists()})]
    assert [found.metadata.name for found in kube.list(ConfigMap, fields={"metadata.name": "one"})] == ["one"]
    kube.deletecollection(ConfigMap)
    eventually(lambda: "one" not in [found.metadata.name for found in kube.list(ConfigMap)])


@steps.step
def apply():
    kube.apply(settings("applied", {"a": "1", "b": "2"}))
    kube.apply(settings("applied", {"a": "1"}))
    assert kube.get(ConfigMap, "applied").data == {"a": "1"}
    try:
        kube.apply(settings("applied", {"a": "2"}), field_manager="another")
        raise AssertionError("no conflict")
    except ApiError as error:
        assert error.status.code == 409 and 'conflict with "lightkube"' in error.status.message, error.status
        assert error.status.details.causes[0].field == ".data.a", error.status.details
    kube.apply(settings("applied", {"a": "2"}), field_manager="another", force=True)
    owners = {entry.manager for entry in kube.get(ConfigMap, "applied").metadata.managedFields}
    assert owners == {"another"} or owners == {"another", "lightkube"}, owners


@steps.step
def workloads():
    labels = {"app": "web"}
    spec = PodSpec(containers=[Container(name="main", image=IMAGE, args=["serve"])], terminationGracePeriodSeconds=1)
    kube.create(
        Deployment(
            metadata=ObjectMeta(name="web", namespace=NAMESPACE),
            spec=DeploymentSpec(replicas=1, selector=LabelSelector(matchLabels=labels), template=PodTemplateSpec(metadata=ObjectMeta(labels=labels), spec=spec)),
        )
    )
    kube.wait(Deployment, "web", for_conditions=["Available"])
    scale = kube.get(Deployment.Scale, "web")
    assert scale.spec.replicas == 1 and scale.status.selector == "app=web"
    scale.spec.replicas = 2
    kube.replace(scale, "web")
    eventually(lambda: kube.get(Deployment.Status, "web").status.readyReplicas == 2)
    kube.patch(Deployment.Scale, "web", {"spec": {"replicas": 1}}, patch_type=PatchType.MERGE)
    pods = list(kube.list(Pod, labels=labels))
    eventually(lambda: any("listens" in line for line in kube.log(pods[0].metadata.name)))
    kube.delete(Deployment, "web", cascade=CascadeType.FOREGROUND)
    eventually(lambda: not list(kube.list(Pod, labels=labels)))


@steps.step
def custom_resources():
    definition = codecs.load_all_yaml(
        """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: levers.light.example.com}
spec:
  group: light.example.com
  scope: Namespaced
  names: {plural: levers, singular: lever, kind: Lever}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {side: {type: string, enum: [left, right], default: left}}}, status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"""
    )[0]
    kube.create(definition)
    kube.wait(CustomResourceDefinition, "levers.light.example.com", for_conditions=["Established"])
    load_in_cluster_generic_resources(kube)
    Lever = create_namespaced_resource("light.example.com", "v1", "Lever", "levers")
    lever = kube.create(Lever(metadata={"name": "a", "namespace": NAMESPACE}, spec={}))
    assert lever.spec == {"side": "left"}, lever.spec
    try:
        kube.create(Lever(metadata={"name": "b", "namespace": NAMESPACE}, spec={"side": "up"}))
        raise AssertionError("a value outside of the enum was taken")
    except ApiError as error:
        assert error.status.code == 422 and "Unsupported value" in error.status.message, error.status
    kube.patch(Lever.Status, "a", {"status": {"held": True}}, patch_type=PatchType.MERGE)
    assert kube.get(Lever, "a").status == {"held": True}
    kube.apply(Lever(metadata={"name": "a", "namespace": NAMESPACE}, spec={"side": "right"}), force=True)
    kube.delete(Lever, "a")
    kube.delete(CustomResourceDefinition, "levers.light.example.com")


@steps.step
def asynchronous_watch():
    async def follow():
        client = AsyncClient(namespace=NAMESPACE)
        seen = []
        await client.create(settings("watched", {}))
        async for event, found in client.watch(ConfigMap, fields={"metadata.name": "watched"}, server_timeout=20):
            seen.append(event)
            if event == "ADDED":
                await client.patch(ConfigMap, "watched", {"data": {"a": "b"}})
            if event == "MODIFIED":
                await client.delete(ConfigMap, "watched")
            if event == "DELETED":
                break
        await client.close()
        return seen

    seen = asyncio.run(asyncio.wait_for(follow(), 30))
    assert seen == ["ADDED", "MODIFIED", "DELETED"], seen


steps.run()
