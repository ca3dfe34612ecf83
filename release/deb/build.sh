#!/bin/sh
# What `make deb` does: the Debian package for the release and architecture of this host, as any
# user. In the environment: DIST, where it goes; DEB_PYTHON, an interpreter that is a package's.
set -eu
umask 022
cd "$(dirname "$0")/../.."

here=release/deb
dist=${DIST:-dist}
python=$(readlink -f "${DEB_PYTHON:-/usr/bin/python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
lib=$root/usr/lib/bucketd
doc=$root/usr/share/doc/bucketd

complain() {
    echo "cannot build a Debian package: $1" >&2
    exit 1
}

check_tools() {
    for tool in dpkg-deb dpkg-shlibdeps objdump strip; do
        command -v "$tool" >/dev/null || complain "there is no $tool; apt-get install dpkg-dev"
    done
    dpkg -S "$python" >/dev/null 2>&1 ||
        complain "$python is no package's; name one that is: make deb DEB_PYTHON=/usr/bin/python3.11"
    "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        complain "$python is older than 3.11 or has no venv; apt-get install python3-venv"
}

# Built on one release, a virtual environment does not fit another; the version says which it is for.
package_version() {
    . /etc/os-release
    case $ID in debian) release=deb${VERSION_ID:-13} ;; *) release=$ID$VERSION_ID ;; esac
    echo "$("$python" release/version.py)-1~$release"
}

systemd_version() {
    { systemctl --version || apt-cache show --no-all-versions systemd; } 2>/dev/null |
        sed -n 's/^\(systemd\|Version:\) \([0-9]*\).*/\2/p' | head -n 1
}

fill_root() {
    SYSTEMD_VERSION=$(systemd_version) DESTDIR=$root PREFIX=/usr PYTHON=$python \
        sh systemd/install.sh install
    # dpkg replaces files one by one, each at once, so there is no other environment to change to.
    rm "$lib"
    mv "$lib.a" "$lib"
    rm -rf "$lib/include" "$lib"/bin/[Aa]ctivate*
    # Commands of the libraries, which nobody looks for here.
    find "$lib/bin" -type f ! -name bucketd ! -name bucketctl -delete
    find "$lib" -name '*.so*' -type f -exec strip --strip-unneeded {} +
    # As of every package of modules, postinst makes the bytecode.
    find "$lib" -name __pycache__ -prune -exec rm -r {} +
    # Modules are not started by themselves.
    find "$lib/lib" -name '*.py' -exec sed -i '1{/^#!/d}' {} +
    mkdir -p "$root/usr/share/zsh/vendor-completions"
    mv "$root/usr/share/zsh/site-functions/_bucketctl" "$root/usr/share/zsh/vendor-completions"
    rmdir "$root/usr/share/zsh/site-functions"
    gzip -9n "$root"/usr/share/man/man*/*
}

fill_doc() {
    mkdir -p "$doc/examples"
    cp -R examples/*session* "$doc/examples"
    gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
    "$python" $here/copyright.py LICENSE "$(echo "$lib"/lib/python*/site-packages)" >"$doc/copyright"
    mkdir -p "$root/usr/share/lintian/overrides"
    cp $here/lintian-overrides "$root/usr/share/lintian/overrides/bucketd"
    printf 'bucketd (%s) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' \
        "$version" "$maintainer" "$(date -R -d "@$epoch")" | gzip -9nc >"$doc/changelog.Debian.gz"
}

# What the compiled modules need of the system, as package names and versions.
libraries() {
    mkdir -p "$work/debian"
    echo "Source: bucketd" >"$work/debian/control"
    find "$lib" -name '*.so*' -type f >"$work/objects"
    (cd "$work" && xargs dpkg-shlibdeps --ignore-missing-info -O <objects 2>"$work/said") ||
        complain "$(cat "$work/said")"
}

fill_control() {
    mkdir "$root/DEBIAN"
    libraries=$(libraries | sed -n 's/^shlibs:Depends=//p')
    size=$(du -sk --exclude=DEBIAN "$root" | cut -f 1)
    oldest=$(PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=. "$lib/bin/python" release/formats.py)
    for file in control postinst prerm postrm templates; do
        sed -e "s|@VERSION@|$version|g; s|@MAINTAINER@|$maintainer|; s|@SIZE@|$size|" \
            -e "s|@ARCHITECTURE@|$architecture|; s|@PYTHON@|${python##*/}|" \
            -e "s|@LIBRARIES@|$libraries|; s|@OLDEST_READER@|$oldest|g" \
            $here/$file >"$root/DEBIAN/$file"
    done
    chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"
    (cd "$root" && find etc -type f -printf '/%p\n' >DEBIAN/conffiles)
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
}

# Links within /usr are relative in Debian. The interpreter works through it once it is installed.
relative_links() {
    find "$lib/bin" -lname '/*' -exec ln -sfn "../../..${python#/usr}" {} ';'
}

# One time for all that was made just now, so that the same source gives the same package.
same_times() {
    find "$root" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
}

check_tools
version=$(package_version)
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-The bucketd authors} <${DEBEMAIL:-bucketd@localhost}>"
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH="$epoch"
fill_root
fill_doc
fill_control
relative_links
same_times
mkdir -p "$dist"
dpkg-deb --root-owner-group --build "$root" "$dist/bucketd_${version}_$architecture.deb" >/dev/null
echo "$dist/bucketd_${version}_$architecture.deb"
