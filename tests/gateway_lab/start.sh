#!/bin/sh
# Install the gateway beside this file if it is not here, then run the harness until SIGTERM or
# SIGINT. Arguments go to harness.py, e.g. --scenario row_failures
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ -n "${PORTKEY_GATEWAY:-}" ] || python3 "$here/install.py"
exec python3 "$here/harness.py" "$@"
