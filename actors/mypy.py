"""A plugin for mypy: ``plugins = ["actors.mypy"]``. A remote method has its own parameters, and so has a constructor.

Each parameter takes a reference too, since a reference stands for its value. Nothing imports this module but mypy.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from mypy.errorcodes import ATTR_DEFINED
from mypy.maptype import map_instance_to_supertype
from mypy.nodes import ARG_STAR, ARG_STAR2, MDEF, FuncDef, SymbolTableNode, TypeAlias, TypeInfo, Var
from mypy.plugin import Plugin
from mypy.typeops import type_object_type
from mypy.types import (
    AnyType,
    CallableType,
    Instance,
    Overloaded,
    Parameters,
    ParamSpecType,
    ProperType,
    Type,
    TypeOfAny,
    TypeType,
    UnionType,
    UnpackType,
    get_proper_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy.checker import TypeChecker
    from mypy.plugin import AttributeContext, ClassDefContext, FunctionContext, MethodContext, MethodSigContext

ACTOR_CLASS = "actors.actorclass.ActorClass"
FUNCTION = "actors.task.RemoteFunction"
GROUP = "actors.group.ActorGroup"
GROUP_METHOD = "actors.group.GroupMethod"
HANDLE = "actors.handle.ActorHandle"
METHOD = "actors.handle.RemoteMethod"
REF = "actors.refs.ObjectRef"
REMOTE = "actors.actorclass.remote"
STREAM = "actors.stream.ObjectRefGenerator"

MARK = "mlx-actors"  # in the metadata of a class that is decorated
GIVEN = ("remote", "options", "group")  # what a decorated class has instead of being called

_STREAMS = ("typing.Generator", "typing.Iterator", "typing.AsyncGenerator", "typing.AsyncIterator")
_ANY = AnyType(TypeOfAny.special_form)
_OPEN = Parameters([_ANY, _ANY], [ARG_STAR, ARG_STAR2], [None, None], is_ellipsis_args=True)


class Types(Plugin):
    """See the module."""

    def get_class_decorator_hook(self, fullname: str) -> Callable[[ClassDefContext], None] | None:
        """See `mypy.plugin.Plugin`."""
        return _decorate if fullname == REMOTE else None

    def get_base_class_hook(self, fullname: str) -> Callable[[ClassDefContext], None] | None:
        """See `mypy.plugin.Plugin`."""
        return self._refuse_base if self._is_decorated(fullname) else None

    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        """See `mypy.plugin.Plugin`."""
        if fullname == REMOTE:
            return self._opened
        return _refuse_call if self._is_decorated(fullname) else None

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        """See `mypy.plugin.Plugin`."""
        if fullname in {"actors.actorclass.Remote.__call__", "actors.actorclass.OpenRemote.__call__"}:
            return self._opened
        return None

    def get_method_signature_hook(self, fullname: str) -> Callable[[MethodSigContext], Any] | None:
        """See `mypy.plugin.Plugin`."""
        if fullname in {f"{METHOD}.map", f"{GROUP_METHOD}.map", f"{FUNCTION}.map"}:
            return _mapped
        if fullname == f"{ACTOR_CLASS}.remote":
            return self._constructed
        return None

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """See `mypy.plugin.Plugin`."""
        owner, _, name = fullname.rpartition(".")
        if owner in {HANDLE, GROUP}:
            return lambda context: self._method(context, owner, name)
        return _call if fullname in {f"{METHOD}.remote", f"{FUNCTION}.remote"} else None

    def get_class_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """See `mypy.plugin.Plugin`."""
        name = fullname.rpartition(".")[2]
        if name in GIVEN:
            return lambda context: self._given(context, name)
        return None

    # -- classes ----------------------------------------------------------------------------------------------------

    def _is_decorated(self, fullname: str) -> bool:
        found = self.lookup_fully_qualified(fullname)
        return found is not None and isinstance(found.node, TypeInfo) and MARK in found.node.metadata

    @staticmethod
    def _refuse_base(context: ClassDefContext) -> None:
        # `Counter.cls` is an alias of the same class: only the bare name is wrong.
        for base in context.cls.base_type_exprs:
            node = getattr(base, "node", None)
            if isinstance(node, TypeInfo) and MARK in node.metadata:
                name = node.name
                context.api.fail(f"{name} is an actor class: inherit from {name}.cls", base)

    def _given(self, context: AttributeContext, name: str) -> Type:
        """Returns the type of ``Counter.remote`` and its like, where ``Counter`` is decorated."""
        info = _class_of(context.type)
        if info is None or MARK not in info.metadata or not info.names[name].plugin_generated:
            return context.default_attr_type
        checker = _checker(context)
        constructor = get_proper_type(type_object_type(info))
        made: Type = (
            constructor.ret_type
            if isinstance(constructor, CallableType)
            else Instance(info, [_ANY] * len(info.defn.type_vars))
        )
        whole = self._instance(ACTOR_CLASS, [self._parameters(constructor), made])
        kind = _member(checker, whole, name, context)
        exact = kind.items[-1 if name == "options" else 0] if isinstance(kind, Overloaded) else kind
        if name == "remote" and isinstance(exact, CallableType):
            return exact.copy_modified(ret_type=self._instance(HANDLE, [made]))
        return exact

    def _constructed(self, context: MethodSigContext) -> CallableType:
        """Gives a handle also where plain types give the class itself; see `actors.marked.Marked`."""
        whole = get_proper_type(context.type)
        signature = context.default_signature
        if not isinstance(whole, Instance):
            return signature
        return signature.copy_modified(ret_type=self._instance(HANDLE, [whole.args[1]]))

    # -- methods ----------------------------------------------------------------------------------------------------

    def _method(self, context: AttributeContext, owner: str, name: str) -> Type:
        """Returns the type of ``handle.method``."""
        whole = context.type
        default = get_proper_type(context.default_attr_type)
        wanted = METHOD if owner == HANDLE else GROUP_METHOD
        if not isinstance(whole, Instance) or not isinstance(default, Instance) or default.type.fullname != wanted:
            return default
        actor = get_proper_type(whole.args[0])
        if not isinstance(actor, Instance):
            return default
        found = actor.type.get(name)
        if found is None and actor.type.fallback_to_any:
            return default
        if found is None or (found.plugin_generated and name in GIVEN):
            near = difflib.get_close_matches(name, [*actor.type.names], 1)
            maybe = f'; maybe "{near[0]}"?' if near else ""
            message = f'"{actor.type.name}" has no method "{name}"{maybe}'
            context.api.fail(message, context.context, code=ATTR_DEFINED)
            return _ANY
        kind = _member(_checker(context), actor, name, context)
        function = found.node if isinstance(found.node, FuncDef) else None
        made = self._remote(kind, function)
        if made is None:
            if isinstance(kind, AnyType | Overloaded):
                return default
            context.api.fail(
                f'"{name}" of "{actor.type.name}" is no method: only methods can be called', context.context
            )
            return _ANY
        return default.copy_modified(args=made)

    def _remote(self, kind: ProperType, function: FuncDef | None) -> list[Type] | None:
        """Returns the arguments of ``RemoteMethod``: what a method takes, and what its ``.remote`` gives."""
        if isinstance(kind, CallableType):
            return [self._parameters(kind), self._result(kind.ret_type, function)]
        if isinstance(kind, Instance) and kind.type.has_base(METHOD):  # it is marked
            parameters, _, result = kind.args
            return [self._parameters(get_proper_type(parameters)), result]
        return None

    def _result(self, given: Type, function: FuncDef | None) -> Type:
        proper = get_proper_type(given)
        if isinstance(proper, AnyType):
            return proper if function is None or not function.is_generator else self._instance(STREAM, [proper])
        if isinstance(proper, Instance):
            if proper.type.fullname == "typing.Coroutine":
                return self._instance(REF, [proper.args[2]])
            if proper.type.fullname in _STREAMS:
                return self._instance(STREAM, [proper.args[0]])
        return self._instance(REF, [given])

    # -- parameters -------------------------------------------------------------------------------------------------

    def _opened(self, context: FunctionContext | MethodContext) -> Type:
        """Lets what `remote` has made take references."""
        made = get_proper_type(context.default_return_type)
        if isinstance(made, Instance) and made.type.fullname in {ACTOR_CLASS, FUNCTION}:
            return made.copy_modified(args=[self._parameters(get_proper_type(made.args[0])), made.args[1]])
        return made

    def _parameters(self, of: ProperType) -> Parameters:
        """Returns the parameters of a callable, each of which takes a reference as well."""
        if not isinstance(of, CallableType | Parameters) or any(
            isinstance(get_proper_type(kind), ParamSpecType | UnpackType) for kind in of.arg_types
        ):
            return _OPEN
        return Parameters(
            [self._or_reference(kind) for kind in of.arg_types],
            of.arg_kinds,
            of.arg_names,
            variables=of.variables,
            is_ellipsis_args=of.is_ellipsis_args,
        )

    def _or_reference(self, kind: Type) -> Type:
        proper = get_proper_type(kind)
        if isinstance(proper, AnyType):
            return kind
        return UnionType.make_union([kind, self._instance(REF, [kind])])

    def _instance(self, fullname: str, args: list[Type]) -> Instance:
        found = self.lookup_fully_qualified(fullname)
        assert found is not None
        assert isinstance(found.node, TypeInfo)
        return Instance(found.node, args)


def _decorate(context: ClassDefContext) -> None:
    """Gives a decorated class what an actor class has; mypy itself takes no notice of class decorators."""
    info = context.cls.info
    info.metadata[MARK] = {}
    for name in GIVEN:
        if name not in info.names:
            var = Var(name, _ANY)
            var.info = info
            var._fullname = f"{info.fullname}.{name}"  # noqa: SLF001 - as mypy's own plugins do
            var.is_classvar = True
            info.names[name] = SymbolTableNode(MDEF, var, plugin_generated=True)
    if "cls" not in info.names:
        plain = Instance(info, list(info.defn.type_vars))
        module = info.module_name
        alias = TypeAlias(plain, f"{info.fullname}.cls", module, info.line, info.column)
        info.names["cls"] = SymbolTableNode(MDEF, alias, plugin_generated=True)


def _refuse_call(context: FunctionContext) -> Type:
    made = get_proper_type(context.default_return_type)
    callee = getattr(context.context, "callee", None)
    if not isinstance(made, Instance) or getattr(callee, "name", None) != made.type.name:
        return made  # Counter.cls(...)
    name = made.type.name
    context.api.fail(f"{name} is an actor class: use {name}.remote(...), or {name}.cls(...) here", context.context)
    return made


def _mapped(context: MethodSigContext) -> CallableType:
    """Has ``.map`` take values for the method's first parameter."""
    signature = context.default_signature
    whole = context.type
    if not isinstance(whole, Instance):
        return signature
    parameters = get_proper_type(whole.args[0])
    values = get_proper_type(signature.arg_types[0])
    if not isinstance(parameters, Parameters) or parameters.variables or parameters.is_ellipsis_args:
        return signature
    if not parameters.arg_types or not isinstance(values, Instance):
        return signature
    return signature.copy_modified(arg_types=[values.copy_modified(args=[parameters.arg_types[0]])])


def _call(context: AttributeContext) -> Type:
    """Has ``.remote`` be what plain types cannot say: a call with just these parameters."""
    whole = context.type
    if not isinstance(whole, Instance):
        return context.default_attr_type
    of = next(base for base in whole.type.mro if base.fullname in {METHOD, FUNCTION})
    parameters, result = map(get_proper_type, map_instance_to_supertype(whole, of).args)
    if not isinstance(parameters, Parameters):
        return context.default_attr_type
    return CallableType(
        parameters.arg_types,
        parameters.arg_kinds,
        parameters.arg_names,
        result,
        context.api.named_generic_type("builtins.function", []),
        name="remote",
        variables=parameters.variables,
        is_ellipsis_args=parameters.is_ellipsis_args,
    )


def _class_of(kind: ProperType) -> TypeInfo | None:
    if isinstance(kind, TypeType):
        kind = get_proper_type(kind.item)
        return kind.type if isinstance(kind, Instance) else None
    if isinstance(kind, CallableType | Overloaded) and kind.is_type_obj():
        return kind.type_object()
    return None


def _checker(context: AttributeContext) -> TypeChecker:
    from mypy.checker import TypeChecker

    assert isinstance(context.api, TypeChecker)
    return context.api


def _member(checker: TypeChecker, of: Instance, name: str, context: AttributeContext) -> ProperType:
    return get_proper_type(checker.expr_checker.analyze_external_member_access(name, of, context.context))


def plugin(_version: str) -> type[Plugin]:
    """Returns the plugin; called by mypy."""
    return Types
