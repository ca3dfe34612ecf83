#!/bin/sh
# What `make install` and `make uninstall` do. In the environment: PREFIX, DESTDIR, PYTHON.
set -eu
umask 022
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:-}
python=${PYTHON:-python3}
lib=$prefix/lib/bucketd
commands="bucketd bucketctl"
man=$prefix/share/man/man1
# shell, and where below $prefix/share it looks for completions
completions="
bash bash-completion/completions/bucketctl
zsh zsh/site-functions/_bucketctl
fish fish/vendor_completions.d/bucketctl.fish
"
config=/etc/bucketd/bucketd.toml

# source, and where it goes below $prefix/lib
files="
systemd/bucketd.service systemd/system/bucketd.service
systemd/bucketd.socket systemd/system/bucketd.socket
systemd/bucketd-backup.service systemd/system/bucketd-backup.service
systemd/bucketd-backup.timer systemd/system/bucketd-backup.timer
systemd/user/bucketd.service systemd/user/bucketd.service
systemd/user/bucketd.socket systemd/user/bucketd.socket
systemd/sysusers.conf sysusers.d/bucketd.conf
systemd/tmpfiles.conf tmpfiles.d/bucketd.conf
systemd/bucketd.toml.5 ../share/man/man5/bucketd.toml.5
systemd/bucketd.7 ../share/man/man7/bucketd.7
systemd/bucketd.8 ../share/man/man8/bucketd.8
systemd/move-buckets.sh ../share/bucketd/move-buckets.sh
config/monitoring/alerts.yml ../share/bucketd/monitoring/alerts.yml
config/monitoring/grafana.json ../share/bucketd/monitoring/grafana.json
config/schemas/daily-work.json ../share/bucketd/schemas/daily-work.json
config/schemas/login-session.json ../share/bucketd/schemas/login-session.json
"

each_file() { # each_file COMMAND: run with source and target
    echo "$files" | while read -r source target; do
        [ -z "$source" ] || "$1" "$source" "$destdir$prefix/lib/$target"
    done
}

put() {
    mode=644
    case $1 in *.sh) mode=755 ;; esac
    mkdir -p "$(dirname "$2")"
    sed "s|/usr/local/|$prefix/|g; $for_this_systemd" "$1" >"$2.new"
    chmod $mode "$2.new"
    mv "$2.new" "$2"
}

take() {
    rm -f "$2"
    rmdir "$(dirname "$2")" 2>/dev/null || :
}

# The settings file of a service. All is commented out but who is an operator: the group that
# sysusers.conf creates, since users of a host could not give a first command otherwise.
settings() {
    sed 's/^# operator_groups = \[\]$/operator_groups = ["bucketd"]/' config/bucketd.toml
}

each_completion() { # each_completion COMMAND: run with shell and file
    echo "$completions" | while read -r shell file; do
        [ -z "$shell" ] || "$1" "$shell" "$destdir$prefix/share/$file"
    done
}

complete_in() {
    mkdir -p "$(dirname "$2")"
    "$destdir$lib/bin/python" -m bucketd_client.ctl completion "$1" >"$2"
}

# systemd before 253 has no Type=notify-reload, so its units say notify. So do those for a systemd of
# unknown version, such as in an image: notify works everywhere, but a reload may return early.
for_this_systemd=
version=${SYSTEMD_VERSION:-$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')}
if [ "${version:-0}" -lt 253 ]; then
    for_this_systemd='s/^Type=notify-reload$/Type=notify/'
fi

# $lib is a link to one of two environments. This function creates the other one and then moves the
# link in one step: an interrupted installation leaves the old environment, and a command that starts
# meanwhile finds all its modules. The build uses a copy of the source, since setuptools leaves files
# in a source directory and includes them the next time.
make_environment() {
    new=$destdir$lib.a old=$destdir$lib.b
    [ "$(readlink "$destdir$lib")" != bucketd.a ] || { new=$destdir$lib.b old=$destdir$lib.a; }
    source=$(mktemp -d)
    trap 'rm -rf "$source"' EXIT
    cp -R bucketd pyproject.toml README.md LICENSE client/python "$source"
    rm -rf "$new"
    "$python" -m venv "$new"
    "$new/bin/pip" install --quiet --disable-pip-version-check --no-compile \
        -c requirements.lock "$source/python" "$source"
    "$new/bin/pip" --quiet --disable-pip-version-check uninstall --yes pip setuptools 2>/dev/null
    { printf '#!%s/bin/python -I\n' "$new" && tail -n +2 client/python/bucketctl; } >"$new/bin/bucketctl"
    # direct_url.json names the temporary copy of the source.
    find "$new/lib" -name direct_url.json -delete
    find "$new/lib" -name RECORD -exec sed -i '/direct_url\.json,/d' {} +
    # The environment was created under another name than its final one.
    grep -rlIF "$new" "$new" | while read -r file; do
        sed -i "s|$new|$lib|g" "$file"
    done
    # The daemon cannot write bytecode there. The bytecode has the final paths for tracebacks.
    find "$new/lib" -name __pycache__ -prune -exec rm -r {} +
    "$new/bin/python" -m compileall -q -s "$new" -p "$lib" "$new/lib"
    ln -sfn "$(basename "$new")" "$destdir$lib.new"
    mv -T "$destdir$lib.new" "$destdir$lib"
    rm -rf "$old"
}

install_all() {
    mkdir -p "$destdir$prefix/lib" "$destdir$prefix/bin"
    make_environment
    for command in $commands; do
        ln -sfn "../lib/bucketd/bin/$command" "$destdir$prefix/bin/$command"
    done
    each_file put
    rm -f "$destdir$man/bucketctl"*.1
    "$destdir$lib/bin/python" -m bucketd_client.ctl.commands.man "$destdir$man"
    each_completion complete_in
    if [ ! -e "$destdir$config" ]; then
        mkdir -p "$destdir$(dirname "$config")"
        settings >"$destdir$config"
        chmod 644 "$destdir$config"
    fi
    if on_this_system; then
        systemd-sysusers "$prefix/lib/sysusers.d/bucketd.conf"
        systemd-tmpfiles --create "$prefix/lib/tmpfiles.d/bucketd.conf"
        systemctl daemon-reload
        echo "Installed. To start bucketd now and at each boot: systemctl enable --now bucketd.service"
        echo "If bucketd runs already: systemctl restart bucketd.service"
        echo "To make ada an operator, once she logs in again: usermod -aG bucketd ada"
    fi
}

uninstall_all() {
    if on_this_system; then
        systemctl --quiet disable --now \
            bucketd.service bucketd.socket bucketd-backup.timer 2>/dev/null || :
    fi
    each_file take
    rmdir "$destdir$prefix/share/bucketd" 2>/dev/null || :
    for command in $commands; do
        link=$destdir$prefix/bin/$command
        [ "$(readlink "$link")" != "../lib/bucketd/bin/$command" ] || rm "$link"
    done
    rm -f "$destdir$man/bucketctl"*.1
    rmdir "$destdir$man" 2>/dev/null || :
    each_completion take
    rm -rf "$destdir$lib" "$destdir$lib.new" "$destdir$lib.a" "$destdir$lib.b"
    if settings | cmp -s - "$destdir$config"; then
        rm "$destdir$config"
        rmdir "$destdir$(dirname "$config")" 2>/dev/null || :
    fi
    if on_this_system; then
        systemctl daemon-reload
        echo "Removed. The buckets in /var/lib/bucketd and their backups stay, and so does the user bucketd, their owner."
    fi
}

on_this_system() { [ -z "$destdir" ] && [ -d /run/systemd/system ]; }

case ${1:-} in
install) install_all ;;
uninstall) uninstall_all ;;
*)
    echo "usage: install.sh install|uninstall" >&2
    exit 2
    ;;
esac
