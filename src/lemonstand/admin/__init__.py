"""What an operator does to a running site between two applies: passwords, locks, ticket keys. It reaches hosts as Ansible does."""

from lemonstand.admin.access import Hosts
from lemonstand.admin.alarms import Alarm, Alarms, read_alarms
from lemonstand.admin.app_passwords import AppPassword, AppPasswords
from lemonstand.admin.keys import list_keys
from lemonstand.admin.people import People, Person
from lemonstand.admin.spread import Spread, read_spread
from lemonstand.admin.users import Users, generate_password, hash_password

__all__ = [
    "Alarm",
    "Alarms",
    "AppPassword",
    "AppPasswords",
    "Hosts",
    "People",
    "Person",
    "Spread",
    "Users",
    "generate_password",
    "hash_password",
    "list_keys",
    "read_alarms",
    "read_spread",
]
