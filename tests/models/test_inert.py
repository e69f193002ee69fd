from dailies.models.inert import Inert, plain


def test_references_in_an_omegaconf_node_are_resolved_in_the_whole_configuration():
    def node(value):
        return Inert("omegaconf.nodes.AnyNode", state={"_val": value})

    whole = Inert("omegaconf.dictconfig.DictConfig", state={"_parent": None})
    model = Inert("omegaconf.dictconfig.DictConfig", state={"_parent": whole, "_content": {"width": node("${size}")}})
    whole.state["_content"] = {"model": model, "size": node(6)}

    assert plain({"cfg": whole})["cfg"] == {"model": {"width": 6}, "size": 6}
    assert plain({"cfg": model})["cfg"] == {"width": 6}
