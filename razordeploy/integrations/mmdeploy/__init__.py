"""Lets mmdeploy's own scripts make int8 engines: name this module in a deploy config's ``custom_imports``."""

from razordeploy.integrations.mmdeploy.install import install

install()
