#!/bin/sh
# Makes the secrets of docker-compose.yml in ./secrets, each once: what is there stays.
set -eu
cd "$(dirname "$0")"
umask 022 # containers have other users, so they are let read; the folder lets nobody else in
mkdir -p -m 0700 secrets
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
if [ ! -s secrets/redis.conf ] || [ ! -s secrets/gateway.env ]; then
  password=$(random)
  printf 'requirepass %s\n' "$password" > secrets/redis.conf
  (umask 077 && printf 'SHOESTRING_REDIS_URL=redis://:%s@redis:6379/0\n' "$password" > secrets/gateway.env)
fi
[ -s secrets/grafana_admin_password ] || random > secrets/grafana_admin_password
