"""Step 1 of RESTORE.md for a store that is a directory."""

CONNECT = """\
The backups are plain files in a directory. If it was copied to another place, set ROOT to that place. The function
`aws` does with files what the S3 client of the same name does with objects, so that all commands below work here too.

```sh
ROOT='@ROOT@'
aws() {
  verb=$2
  shift 2
  while [ "${1#--}" != "$1" ]; do
    [ "$1" != --exclude ] || shift
    shift
  done
  case "$verb:$1:${2-}" in
    ls:*) ls -l "$1" ;;
    cp:*:-) cat "$1" ;;
    cp:*/:*) mkdir -p "$2" && cp -R "$1." "$2" ;;
    *) cp "$1" "$2" ;;
  esac
}
```
"""
