# The same environment as everywhere else, on Debian 12 with its own Python 3.11:
#   make image                                               with docker, podman or buildah (PIPELINE=today as well)
#   docker run --rm -p 127.0.0.1:8888:8888 msa3d             JupyterLab, with the token that it prints
#   docker run --rm -v "$PWD/runs:/home/jovyan/msa3d/runs" msa3d make all
# It needs no ENTRYPOINT, so that Binder and everybody else may run any command.
#
# The observation is made at run time, not here: 126 files of 5.6 MB that do not compress would double what a Binder
# node fetches before a session starts, and are made in a minute or two once they are wanted (`tiny`: in seconds).

# Debian 12 as of 2026-08-24, for every architecture. The digest decides; the tag beside it is for people.
ARG BASE=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${BASE} AS base
# Debian's image names, in comments, the snapshot of the archive that it was made of: packages are taken from there, so
# that the digest above pins them too. (A base without such comments keeps its own sources.)
RUN list=/etc/apt/sources.list.d/debian.sources \
    && if grep -qs '^# http://snapshot' "$list"; then \
           sed -i -E '/^URIs:/d; s|^# (http://snapshot.*)|URIs: \1|' "$list"; fi \
    && printf 'Acquire::Check-Valid-Until "false";\nAcquire::Retries "5";\n' > /etc/apt/apt.conf.d/80snapshot \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git libgomp1 make python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/apt /var/log/dpkg.log

# The C compiler is wanted for stsci.imagestats alone, and stays in this stage.
FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3.11-dev
COPY requirements*.lock /build/
WORKDIR /build
# The paper's pipeline, or today's.
ARG PIPELINE=paper
# `make test` in the image: make image IMAGEARGS="--build-arg TESTS=1"
ARG TESTS=
# What builds, and uv itself, are of the lock as well (as in the Makefile). Certificates are the system's, so that a
# network with its own authority needs no more than its bundle mounted on /etc/ssl/certs.
# Then what nobody runs here goes: examples and the test suites of others, a fifth of the size. (A few packages carry
# files for other Pythons that do not compile: hence the true.)
RUN if test "${PIPELINE}" = today; then for kind in "" -test; do \
        mv requirements${kind}-today.lock requirements${kind}.lock; done; fi \
    && python3.11 -m venv /opt/msa3d \
    && awk '/^[^ #]/ { split($0, name, /==/); \
                       take = name[1] ~ /^(numpy|packaging|setuptools|setuptools-scm|typing-extensions|uv|vcs-versioning|wheel)$/ } \
            take' requirements.lock > first.txt \
    && PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
        /opt/msa3d/bin/pip install -q --no-cache-dir --no-deps --require-hashes -r first.txt \
    && /opt/msa3d/bin/uv pip sync -q --native-tls --python /opt/msa3d/bin/python --no-cache --require-hashes \
        --no-build-isolation requirements.lock \
    && if test -n "${TESTS}"; then /opt/msa3d/bin/uv pip install -q --native-tls --python /opt/msa3d/bin/python --no-cache \
        --require-hashes --no-build-isolation -r requirements-test.lock; fi \
    && cd /opt/msa3d/lib/python3.11/site-packages \
    && find astroquery dask jwst networkx numpy scipy specutils spherical_geometry -type d -name tests -prune \
        -exec rm -rf {} + \
    && (/opt/msa3d/bin/python -m compileall -q -j 0 . > /dev/null || true)

FROM base
ARG NB_USER=jovyan
ARG NB_UID=1000
# The revision for the headers of products, as .git is not copied; `make image` gives it.
ARG REVISION=
ARG VERSION=
ARG BASE
ARG PIPELINE=paper
LABEL org.opencontainers.image.title="msa3d" \
      org.opencontainers.image.description="JWST/NIRSpec slit-stepping: from count rates to data cubes and figures" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
RUN useradd --create-home --shell /bin/bash --uid "${NB_UID}" "${NB_USER}"
COPY --from=build /opt/msa3d /opt/msa3d
ENV USER=${NB_USER} HOME=/home/${NB_USER} PATH=/opt/msa3d/bin:${PATH} \
    MSA3D_ENV=image PIPELINE=${PIPELINE} MSA3D_GIT_REVISION=${REVISION} LANG=C.UTF-8
COPY --chown=${NB_UID}:${NB_UID} . /home/${NB_USER}/msa3d
WORKDIR /home/${NB_USER}/msa3d
# A volume that is mounted on runs/ is then the user's.
RUN /opt/msa3d/bin/pip install -q --no-cache-dir --no-deps --no-build-isolation --no-index -e . \
    && mkdir runs \
    && chown -R --from=0 "${NB_UID}:${NB_UID}" .
# By number, so that Kubernetes can see that it is not root.
USER ${NB_UID}
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
