# The course in a container, for one person or as the image of a JupyterHub.
#
#     docker build -t sora_edu .
#     docker run --rm -p 8888:8888 sora_edu          then open the address that it prints
#
# JupyterHub starts `jupyterhub-singleuser` in it instead: see docs/where_it_runs.md.
FROM python:3.11-slim-bookworm

# make and the fonts of figures come with Python packages; nothing else is needed from the system.
RUN useradd --create-home --uid 1000 learner
WORKDIR /home/learner/course

# torch first and from its own index: the usual one holds several gigabytes of CUDA.
COPY constraints.txt pyproject.toml README.md LICENSE LICENSE-docs ./
RUN pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)"

COPY sora_edu ./sora_edu
COPY data ./data
RUN pip install --no-cache-dir -c constraints.txt . jupyterhub==5.4.2

COPY --chown=learner notebooks ./notebooks
COPY --chown=learner docs ./docs
RUN chown learner /home/learner/course
USER learner

ENV OMP_NUM_THREADS=1
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--ServerApp.root_dir=.", "--LabApp.default_url=/lab/tree/notebooks/00_from_prompt_to_video.ipynb"]
