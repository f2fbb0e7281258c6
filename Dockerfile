# An image with the program and nothing else: no shell, no package manager.
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" -t scrip .
#   docker run -p 8080:8080 -p 1883:1883 -v scrip:/data scrip
#
# No HEALTHCHECK: it would need a program in the image that asks, and there is
# none. Let what runs the container ask GET /readyz.

FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26 AS build
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=unknown
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/scrip ./cmd/scrip
RUN mkdir /out/data /out/tmp && script/licences /out/licences

FROM scratch
# For TLS to a database and a broker. Time zones are in the program.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/tmp /tmp
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/licences /usr/share/doc/scrip
COPY --from=build /out/scrip /usr/local/bin/scrip
# An address without a host is all of the container's; what of it is published
# is for whoever runs it to say.
ENV PATH=/usr/local/bin \
    SCRIP_DATA_DIR=/data \
    SCRIP_HTTP_ADDR=:8080 \
    SCRIP_MQTT_ADDR=:1883
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080 1883
ENTRYPOINT ["scrip"]
CMD ["serve"]
