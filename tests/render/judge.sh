#!/bin/sh
# Runs inside a container that holds the roles' packages: each rendered host lies in /render/CASE/HOST with the paths it would have.
# /render/places has a line for each file to judge: CASE/HOST PATH.
# One line a complaint: CASE/HOST PATH: what the program says.
set -u
say() { printf '%s %s: %s\n' "$1" "$2" "$(printf '%s' "$3" | tr '\n' ' ' | cut -c1-600)"; }
judge() { # host path command...
  where=$1 path=$2
  shift 2
  said=$("$@" 2>&1) || say "$where" "$path" "${said:-refused without a word}"
}
mkdir -p /etc/lemonstand/pki /etc/lemonstand/ticket-keys
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout /tmp/key -out /tmp/crt -days 2 2>/dev/null
for name in public store-client issuer-client mail-store relay-client relay issuer; do cp /tmp/crt /etc/lemonstand/pki/$name.crt; cp /tmp/key /etc/lemonstand/pki/$name.key; done
for name in public hosts issuer-clients store-clients relay-clients; do cp /tmp/crt /etc/lemonstand/pki/ca-$name.crt; done
# What other files and units would have put there.
mkdir -p /usr/local/lib/lemonstand /run/slapd /run/sshd
ssh-keygen -A >/dev/null
for program in /render/*/*/usr/local/lib/lemonstand/*; do install -m 0755 "$program" /usr/local/lib/lemonstand/; done
install -d -o openldap -g openldap -m 0700 /var/lib/ldap/lemonstand
id vmail >/dev/null 2>&1 || useradd --system --no-create-home vmail
count=0
while read -r where path <&3; do
  root=/render/$where/ file=/render/$where$path
  count=$((count + 1))
  case $path in
    /etc/lemonstand/nftables.nft) judge "$where" "$path" nft -c -f "$file" ;;
    /etc/dovecot/dovecot.conf) cp -R "$root/etc/dovecot/." /etc/dovecot/; judge "$where" "$path" doveconf -c /etc/dovecot/dovecot.conf -n ;;
    /etc/ldap/lemonstand.conf) judge "$where" "$path" slaptest -u -f "$file" ;;
    /etc/chrony/chrony.conf) judge "$where" "$path" chronyd -p -f "$file" ;;
    /etc/nginx/lemonstand.conf) mkdir -p /run/password-page; judge "$where" "$path" nginx -q -t -c "$file" ;;
    /etc/nsd/nsd.conf) judge "$where" "$path" nsd-checkconf "$file" ;;
    /etc/nsd/*.zone) name=${path#/etc/nsd/lemonstand-}; judge "$where" "$path" nsd-checkzone "${name%.zone}" "$file" ;;
    /etc/lemonstand/dkim/opendkim.conf)
      mkdir -p /etc/lemonstand/dkim && cp -R "$root/etc/lemonstand/dkim/." /etc/lemonstand/dkim
      judge "$where" "$path" opendkim -n -x /etc/lemonstand/dkim/opendkim.conf ;;
    /etc/postfix/main.cf)
      rm -rf /tmp/postfix && mkdir /tmp/postfix && chmod 755 /tmp/postfix && cp -R /etc/postfix/. /tmp/postfix && cp -R "$root/etc/postfix/." /tmp/postfix
      judge "$where" "$path" postfix -c /tmp/postfix check
      warned=$(postconf -c /tmp/postfix -n 2>&1 >/dev/null; postconf -c /tmp/postfix -M 2>&1 >/dev/null)
      [ -z "$warned" ] || say "$where" "$path" "$warned" ;;
    *.service | *.timer) judge "$where" "$path" systemd-analyze verify --man=no --recursive-errors=no "$file" ;;
    *.py | /usr/local/lib/lemonstand/*) judge "$where" "$path" python3 -c 'import ast, sys; ast.parse(open(sys.argv[1], encoding="utf-8").read())' "$file" ;;
    *.json) judge "$where" "$path" python3 -m json.tool "$file" /dev/null ;;
    # A pattern is all interfaces; `-` in front is what a kernel may not have.
    /etc/sysctl.d/*) judge "$where" "$path" sh -c '! grep -Evx "#.*|-?[a-z0-9_./*-]+ = [0-9]+" "$1"' sh "$file" ;;
    /etc/ssh/*) judge "$where" "$path" /usr/sbin/sshd -t -f "$file" ;;
  esac
done 3</render/places
echo "judged $count files"
