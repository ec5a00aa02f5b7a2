# The same environment as everywhere else, on Debian 12 with its own Python 3.11:
#   docker build -t msa3d .
#   docker run --rm -p 8888:8888 msa3d                       JupyterLab
#   docker run --rm -v "$PWD/runs:/home/jovyan/msa3d/runs" msa3d make all
# It needs no ENTRYPOINT, so that Binder and everybody else may run any command.

FROM debian:bookworm-slim AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git libgomp1 make python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/*

# The C compiler is wanted for stsci.imagestats alone, and stays in this stage.
FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3.11-dev
COPY requirements.lock /build/
WORKDIR /build
# What builds, and uv itself, are of the lock as well (as in the Makefile).
RUN python3.11 -m venv /opt/msa3d \
    && awk '/^[^ #]/ { split($0, name, /==/); \
                       take = name[1] ~ /^(numpy|packaging|setuptools|setuptools-scm|typing-extensions|uv|vcs-versioning|wheel)$/ } \
            take' requirements.lock > first.txt \
    && /opt/msa3d/bin/pip install -q --no-cache-dir --no-deps --require-hashes -r first.txt \
    && /opt/msa3d/bin/uv pip sync -q --python /opt/msa3d/bin/python --no-cache --require-hashes \
        --no-build-isolation --compile-bytecode requirements.lock

FROM base
ARG NB_USER=jovyan
ARG NB_UID=1000
# The revision for the headers of products, as .git is not copied: --build-arg REVISION=$(git rev-parse --short=12 HEAD)
ARG REVISION=
RUN useradd --create-home --shell /bin/bash --uid "${NB_UID}" "${NB_USER}"
COPY --from=build /opt/msa3d /opt/msa3d
ENV USER=${NB_USER} HOME=/home/${NB_USER} PATH=/opt/msa3d/bin:${PATH} \
    MSA3D_ENV=image MSA3D_GIT_REVISION=${REVISION} LANG=C.UTF-8
COPY --chown=${NB_UID}:${NB_UID} . /home/${NB_USER}/msa3d
WORKDIR /home/${NB_USER}/msa3d
RUN /opt/msa3d/bin/pip install -q --no-cache-dir --no-deps --no-build-isolation --no-index -e . \
    && chown -R "${NB_UID}:${NB_UID}" "/home/${NB_USER}"
USER ${NB_USER}
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
