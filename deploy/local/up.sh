#!/bin/sh
# The platform on this machine: a kind cluster, our two images, one helm install. Run again, it brings changes there.
# KIND_CLUSTER names the cluster; images of other projects are pulled.
set -eu
cd "$(dirname "$0")/../.."
cluster=${KIND_CLUSTER:-fairlead}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

for program in docker kind kubectl helm; do
  command -v "$program" >/dev/null || {
    echo "$program is not on PATH. Docker: https://docs.docker.com/engine/install; kind, kubectl, helm: https://kind.sigs.k8s.io/docs/user/quick-start" >&2
    exit 1
  }
done
kind get clusters | grep -qx "$cluster" || kind create cluster --name "$cluster" --config deploy/local/kind.yaml --wait 120s
for image in pipelines service; do
  docker build --quiet -f "deploy/images/$image.Dockerfile" -t "ghcr.io/fairlead/$image:$version" \
    --build-arg "REVISION=$(git rev-parse HEAD)" .
  kind load docker-image --name "$cluster" "ghcr.io/fairlead/$image:$version"
done
kubectl config use-context "kind-$cluster" >/dev/null
helm upgrade --install fairlead helm/platform -n fairlead --create-namespace --wait --timeout 15m
echo "Remove it again: kind delete cluster --name $cluster"
