#!/bin/sh
# Turns the base image into one that runs and builds nothing: base.sh PACKAGE... installs Debian packages, removes the
# installers, and names the user that images run as.
set -eu
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@"
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /tmp/*
for package in pip setuptools wheel pkg_resources _distutils_hack; do
  rm -rf /usr/local/lib/python3*/site-packages/$package* /usr/lib/python3/dist-packages/$package*
done
rm -rf /usr/local/bin/pip* /usr/bin/pip* /usr/local/bin/wheel /usr/bin/wheel
rm -rf /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels
echo 'fairlead:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd
