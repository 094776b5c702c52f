#!/bin/sh
# Leaves in a virtual environment what runs: no installers, tests, headers, or descriptions of the AWS services that
# nothing here calls. Compiles the rest, since a container's root is read-only. Libraries are not stripped: those that
# auditwheel has moved would not load any more.
set -eu
venv=$1
packages=$(echo "$venv"/lib/python3*/site-packages)

"$venv"/bin/pip uninstall -q -y uv setuptools wheel 2>/dev/null || true
"$venv"/bin/pip uninstall -q -y pip
rm -f "$venv"/bin/activate* "$venv"/bin/Activate.ps1 "$venv"/bin/uv "$venv"/bin/uvx

# pandas, numpy and sklearn keep helpers that are used at run time in a package called testing, which stays.
find "$packages" -type d \( -name tests -o -name include -o -name benchmarks \) -prune -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.a' -o -name '*.c' -o -name '*.h' -o -name '*.map' \) -delete
if [ -d "$packages/botocore/data" ]; then
  find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} +
fi
"$venv"/bin/python -m compileall -q -j 0 "$packages" >/dev/null || true # files for other Pythons do not compile
