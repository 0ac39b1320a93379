// The Node client (`@kubernetes/client-node`): objects, patches, watches, informers, streams, copies and measures.

import assert from 'node:assert';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const IMAGE = process.env.ORLOP_TEST_IMAGE ?? 'orlop.dev/e2e-tool:v1';
const LIMIT_MS = 60_000;
const namespace = `node-${process.pid}`;

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const extensions = config.makeApiClient(k8s.ApiextensionsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `condition` holds. */
async function eventually(condition) {
    const deadline = Date.now() + LIMIT_MS;
    while (!(await condition())) {
        assert(Date.now() < deadline, 'it did not come true in time');
        await sleep(100);
    }
}

/** Holds that `call` is refused with a status code. */
async function refused(code, call) {
    await assert.rejects(call, (error) => {
        assert.strictEqual(error.code, code, String(error));
        return true;
    });
}

/** Collects what is written to it. */
function sink() {
    const chunks = [];
    const stream = new Writable({
        write(chunk, _, done) {
            chunks.push(chunk);
            done();
        },
    });
    return [stream, () => Buffer.concat(chunks).toString()];
}

const steps = {
    async objects() {
        await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'one' }, data: { a: '1' } } });
        await refused(409, () => core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'one' } } }));
        await refused(404, () => core.readNamespacedConfigMap({ namespace, name: 'none' }));
        await refused(422, () => core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'Not_A_Name' } } }));
        const one = await core.readNamespacedConfigMap({ namespace, name: 'one' });
        one.data.b = '2';
        await core.replaceNamespacedConfigMap({ namespace, name: 'one', body: one });
        await refused(409, () => core.replaceNamespacedConfigMap({ namespace, name: 'one', body: one }));
        const listed = await core.listNamespacedConfigMap({ namespace, fieldSelector: 'metadata.name=one' });
        assert.deepStrictEqual(listed.items[0].data, { a: '1', b: '2' });
    },

    async patches() {
        const patch = (body, kind) =>
            core.patchNamespacedConfigMap({ namespace, name: 'one', body }, k8s.setHeaderOptions('Content-Type', kind));
        await patch([{ op: 'remove', path: '/data/a' }], k8s.PatchStrategy.JsonPatch);
        await patch({ data: { c: '3' } }, k8s.PatchStrategy.MergePatch);
        const patched = await patch({ data: { b: null } }, k8s.PatchStrategy.StrategicMergePatch);
        assert.deepStrictEqual(patched.data, { c: '3' });
        const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'one', namespace }, data: { c: '4' } };
        await refused(409, () => objects.patch(body, undefined, undefined, 'node', false, k8s.PatchStrategy.ServerSideApply));
        await objects.patch(body, undefined, undefined, 'node', true, k8s.PatchStrategy.ServerSideApply);
        assert.strictEqual((await objects.read(body)).data.c, '4');
    },

    async watch() {
        const seen = [];
        const watch = new k8s.Watch(config);
        const { metadata } = await core.listNamespacedConfigMap({ namespace });
        const request = await watch.watch(
            `/api/v1/namespaces/${namespace}/configmaps`,
            { resourceVersion: metadata.resourceVersion },
            (phase) => seen.push(phase),
            () => {},
        );
        await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'watched' } } });
        await core.patchNamespacedConfigMap(
            { namespace, name: 'watched', body: { data: { a: 'b' } } },
            k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
        );
        await core.deleteNamespacedConfigMap({ namespace, name: 'watched' });
        await eventually(() => seen.length >= 3);
        assert.deepStrictEqual(seen, ['ADDED', 'MODIFIED', 'DELETED']);
        request.abort();
    },

    async informer() {
        const list = () => core.listNamespacedConfigMap({ namespace });
        const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
        const seen = [];
        for (const verb of ['add', 'update', 'delete']) {
            informer.on(verb, (object) => object.metadata.name === 'informed' && seen.push(verb));
        }
        await informer.start();
        assert(informer.get('one', namespace));
        await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'informed' } } });
        await eventually(() => seen.includes('add'));
        await core.deleteNamespacedConfigMap({ namespace, name: 'informed' });
        await eventually(() => seen.includes('delete'));
        await informer.stop();
    },

    async workloads() {
        const labels = { app: 'server' };
        const container = { name: 'main', image: IMAGE, args: ['serve'], ports: [{ containerPort: 8080 }] };
        const template = { metadata: { labels }, spec: { containers: [container], terminationGracePeriodSeconds: 1 } };
        const spec = { replicas: 1, selector: { matchLabels: labels }, template };
        await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'server' }, spec } });
        await core.createNamespacedService({
            namespace,
            body: { metadata: { name: 'front' }, spec: { selector: labels, ports: [{ port: 80, targetPort: 8080 }] } },
        });
        const ready = async () => (await apps.readNamespacedDeployment({ namespace, name: 'server' })).status.readyReplicas;
        await eventually(async () => (await ready()) === 1);
        const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'server' });
        scale.spec.replicas = 2;
        await apps.replaceNamespacedDeploymentScale({ namespace, name: 'server', body: scale });
        await eventually(async () => (await ready()) === 2);
    },

    async commands() {
        const pod = (await core.listNamespacedPod({ namespace, labelSelector: 'app=server' })).items[0].metadata.name;
        const exec = new k8s.Exec(config);
        const run = async (command, input) => {
            const [stdout, said] = sink();
            const [stderr, warned] = sink();
            const status = await new Promise((resolve, reject) => {
                exec.exec(namespace, pod, 'main', command, stdout, stderr, input, false, resolve).catch(reject);
            });
            return { status, said: said(), warned: warned() };
        };
        const done = await run(['/tool', 'echo', 'hello', ',', 'warn', 'oh'], null);
        assert.deepStrictEqual([done.said, done.warned, done.status.status], ['hello\n', 'oh\n', 'Success']);
        const failed = await run(['/tool', 'exit', '3'], null);
        assert.strictEqual(failed.status.details.causes[0].message, '3');
        const typed = await run(['/tool', 'upper'], Readable.from(['abc\n']));
        assert.strictEqual(typed.said, 'ABC\n');

        const [log, logged] = sink();
        await new k8s.Log(config).log(namespace, pod, 'main', log, { follow: false, tailLines: 5 });
        await eventually(() => logged().includes('listens on 8080'));

        const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'node-'));
        fs.writeFileSync(path.join(folder, 'file'), 'copied');
        const cp = new k8s.Cp(config);
        // Of a lone file it packs the content without a name. It is copied behind the back of the promise.
        await cp.cpToPod(namespace, pod, 'main', folder, '/tmp');
        await eventually(async () => (await run(['/tool', 'cat', '/tmp/file'], null)).said === 'copied');
        fs.rmSync(folder, { recursive: true });
    },

    async ports() {
        const forward = new k8s.PortForward(config);
        const ask = async (open) => {
            const output = new PassThrough();
            const input = new PassThrough();
            const [errors] = sink();
            let answer = '';
            output.on('data', (data) => (answer += data));
            await open(output, errors, input);
            input.write('GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
            await eventually(() => answer.includes('200 OK'));
        };
        const pod = (await core.listNamespacedPod({ namespace, labelSelector: 'app=server' })).items[0].metadata.name;
        await ask((output, errors, input) => forward.portForward(namespace, pod, [8080], output, errors, input));
    },

    async customResources() {
        const schema = { type: 'object', x_kubernetes_preserve_unknown_fields: true };
        const names = { plural: 'rings', singular: 'ring', kind: 'Ring' };
        const version = { name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: schema }, subresources: { status: {} } };
        const spec = { group: 'node.example.com', scope: 'Namespaced', names, versions: [version] };
        const name = 'rings.node.example.com';
        await extensions.createCustomResourceDefinition({ body: { metadata: { name }, spec } });
        const where = { group: 'node.example.com', version: 'v1', namespace, plural: 'rings' };
        const body = { apiVersion: 'node.example.com/v1', kind: 'Ring', metadata: { name: 'a' }, spec: { size: 1 } };
        await custom.createNamespacedCustomObject({ ...where, body });
        await custom.patchNamespacedCustomObjectStatus(
            { ...where, name: 'a', body: { status: { on: true } } },
            k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
        );
        const ring = await custom.getNamespacedCustomObject({ ...where, name: 'a' });
        assert.deepStrictEqual(ring.status, { on: true });
        await objects.delete({ ...body, metadata: { name: 'a', namespace } });
        await extensions.deleteCustomResourceDefinition({ name });
    },

    async measures() {
        const metrics = new k8s.Metrics(config);
        await eventually(async () => (await metrics.getNodeMetrics()).items.length > 0);
        await eventually(async () => (await metrics.getPodMetrics(namespace)).items.length > 0);
        const nodes = await k8s.topNodes(core);
        assert(nodes.length > 0 && nodes[0].CPU.Capacity > 0);
        const pods = await k8s.topPods(core, metrics, namespace);
        assert(pods.length > 0 && pods[0].Containers.length === 1);
    },
};

await core.createNamespace({ body: { metadata: { name: namespace } } });
let failed = 0;
for (const [name, step] of Object.entries(steps)) {
    if (process.argv.length > 2 && !process.argv.includes(name)) continue;
    try {
        await step();
        console.log(`ok   ${name}`);
    } catch (error) {
        failed += 1;
        const told = error.error ?? error.message ?? error;
        console.log(`FAIL ${name}\n${error.stack ?? told}`);
    }
}
await core.deleteNamespace({ name: namespace });
process.exit(failed ? 1 : 0);
