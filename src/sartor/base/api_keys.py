"""API keys: read from the environment, bound to the hosts they are meant for, and masked in every text."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from sartor.base.errors import ConfigError
from sartor.base.i18n import tr

PROVIDER_HOSTS: Mapping[str, tuple[str, ...]] = {
    "ANTHROPIC_API_KEY": ("api.anthropic.com",),
    "ARK_API_KEY": ("ark.cn-beijing.volces.com", "ark.ap-southeast.bytepluses.com"),
    "CEREBRAS_API_KEY": ("api.cerebras.ai",),
    "DASHSCOPE_API_KEY": ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
    "DEEPSEEK_API_KEY": ("api.deepseek.com",),
    "FIREWORKS_API_KEY": ("api.fireworks.ai",),
    "GEMINI_API_KEY": ("generativelanguage.googleapis.com",),
    "GOOGLE_API_KEY": ("generativelanguage.googleapis.com",),
    "GROQ_API_KEY": ("api.groq.com",),
    "HF_TOKEN": ("router.huggingface.co",),
    "MINIMAX_API_KEY": ("api.minimax.io", "api.minimaxi.com"),
    "MISTRAL_API_KEY": ("api.mistral.ai",),
    "MOONSHOT_API_KEY": ("api.moonshot.ai", "api.moonshot.cn"),
    "NVIDIA_API_KEY": ("integrate.api.nvidia.com",),
    "OPENAI_API_KEY": ("api.openai.com", "eu.api.openai.com", "us.api.openai.com"),
    "OPENROUTER_API_KEY": ("openrouter.ai",),
    "PERPLEXITY_API_KEY": ("api.perplexity.ai",),
    "SILICONFLOW_API_KEY": ("api.siliconflow.cn", "api.siliconflow.com"),
    "TOGETHER_API_KEY": ("api.together.xyz", "api.together.ai"),
    "XAI_API_KEY": ("api.x.ai",),
    "ZAI_API_KEY": ("api.z.ai",),
    "ZHIPUAI_API_KEY": ("open.bigmodel.cn",),
}
"""Where a well-known key may be sent; `…_BASE_URL` beside it in the environment names another place."""
MIN_MASKED = 6
"""Characters of a key below which it is not looked for in texts: it would be found everywhere."""
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|gsk|hf|xai|nvapi|fw|csk|tgp|AIza)[-_]?(?=[\w*.-]*[\d*])[\w*.-]{12,}")


def check_url(url: str) -> None:
    """Raises: ConfigError unless it is an http(s) URL with a host and without a user name or password."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and not (parts.username or parts.password)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:  # UnicodeError is one
        valid = False
    if not valid or any(character.isspace() or not character.isprintable() for character in url):
        raise ConfigError(
            "Not an endpoint address.", url, "Use the form https://HOST/v1, without a user name or password."
        )


def host_of(url: str) -> str:
    """The host name of an address, in lower case and without its port."""
    return (urlsplit(url).hostname or "").rstrip(".")


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_key(url: str, key_env: str | None, *, trusted: bool = False) -> str | None:
    """The API key in the environment variable `key_env`; None where no variable is named.

    A key is sent only to the hosts it is bound to: those of PROVIDER_HOSTS, that of the variable `…_BASE_URL` beside
    it, and this machine. `trusted` says that a person gave the variable together with this address, which binds a key
    of no well-known provider.

    Raises: ConfigError when the variable is not set, when the key is not bound to the host, or when it would leave
    this machine unencrypted.
    """
    if not key_env:
        return None
    if not (key := os.environ.get(key_env, "").strip()):
        raise ConfigError("The environment variable {name} is not set.", url, "Set it: export {name}=…", name=key_env)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            "The environment variable {name} does not hold an API key.",
            url,
            "Set it to the key alone: export {name}=…",
            name=key_env,
        )
    host = host_of(url)
    if is_loopback(host):
        return key
    if urlsplit(url).scheme != "https":
        raise ConfigError("The API key would be sent unencrypted.", url, "Use an https address, or no key.")
    bound = bound_hosts(key_env)
    if host in bound or (trusted and key_env not in PROVIDER_HOSTS):
        return key
    raise ConfigError(
        tr("The key in {name} is meant for {hosts}, not for {host}.", name=key_env, hosts=", ".join(bound), host=host)
        if bound
        else tr("The key in {name} is bound to no host.", name=key_env),
        url,
        "If {host} should have it, say so in the environment: export {variable}=https://{host}/v1",
        host=host,
        variable=base_url_variable(key_env),
    )


def base_url_variable(key_env: str) -> str:
    """`OPENAI_BASE_URL` for `OPENAI_API_KEY`: the variable that says where a key is sent, as OpenAI's client reads."""
    stem = re.sub(r"_(API_)?(KEY|TOKEN)$", "", key_env)
    return f"{stem}_BASE_URL"


def bound_hosts(key_env: str) -> tuple[str, ...]:
    """The hosts that a variable's key may be sent to."""
    named = os.environ.get(base_url_variable(key_env), "")
    try:
        own = host_of(named) if named else ""
    except ValueError:
        own = ""
    return (*PROVIDER_HOSTS.get(key_env, ()), *((own,) if own else ()))


def masked(text: str, key: str | None = None) -> str:
    """The text with the key, and everything that looks like one, replaced by asterisks."""
    if key and len(key) >= MIN_MASKED:
        text = text.replace(key, "***")
    return _KEY_LIKE.sub("***", text)
