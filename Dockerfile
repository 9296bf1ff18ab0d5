# One node in a container: docker build -t mlx-actors . && docker compose up
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY actors actors
COPY discovery discovery
RUN pip install --no-cache-dir . && useradd --create-home --uid 1000 actors && mkdir /state && chown actors /state && chmod 700 /state
WORKDIR /home/actors
USER 1000
ENV ACTORS_HOME=/state
VOLUME /state
EXPOSE 50099
STOPSIGNAL SIGTERM
CMD ["actors", "start", "--foreground", "--host", "0.0.0.0"]
