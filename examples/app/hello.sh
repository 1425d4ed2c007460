#!/bin/sh
# Says what the image holds, or serves it: hello [serve]
set -eu
if [ "${1:-}" = serve ]; then
    exec httpd -f -p 8080 -h "$WWW"
fi
echo "hello from version $VERSION, as user $(id -u)"
sed -n 's/.*<p>\(.*\)<\/p>.*/\1/p' "$WWW/index.html"
