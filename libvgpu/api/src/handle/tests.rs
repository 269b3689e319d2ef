use super::*;

#[test]
fn a_handle_of_another_kind_is_refused() {
    let stream = StreamHandle::new(3, 77);
    assert_eq!(StreamHandle::check(stream.raw()), Ok(stream));
    assert_eq!(EventHandle::check(stream.raw()), Err(CuError::INVALID_HANDLE));
    assert_eq!(Handle::<kind::Context>::check(stream.raw()), Err(CuError::INVALID_CONTEXT));
    assert_eq!(StreamHandle::check(stream.raw() & !MARK), Err(CuError::INVALID_HANDLE));
}

#[test]
fn a_handle_is_never_a_user_address_nor_a_negative_number() {
    assert!(StreamHandle::new(0, 0).raw() >> 56 != 0, "addresses of 57 bits end there");
    assert!(Handle::<kind::UserObject>::new(GENERATIONS - 1, INDEXES - 1).raw().cast_signed() > 0);
}

#[test]
fn parts_come_back_and_wrap() {
    let handle = EventHandle::new(GENERATIONS + 5, INDEXES - 1);
    assert_eq!((handle.generation(), handle.index()), (5, INDEXES - 1));
}

#[test]
fn a_function_knows_its_image_and_place() {
    let image = ImageHandle::new(9, IMAGES_MAX - 1);
    let function = FunctionHandle::of_image(image, 65535);
    assert_eq!((function.image(), function.ordinal()), (image, 65535));
}

#[test]
fn a_node_knows_its_graph_and_place() {
    let graph = GraphHandle::new(9, GRAPHS_MAX - 1);
    let node = GraphNodeHandle::of_graph(graph, 0xf_ffff);
    assert_eq!((node.graph(), node.place()), (graph, 0xf_ffff));
}

#[test]
fn contexts_come_back_from_their_handle() {
    assert_eq!(ContextId::of_handle(ContextId::primary(3).handle()), Some(ContextId(4)));
    assert_eq!(ContextId(4).primary_device(), Some(3));
    assert_eq!(ContextId(65).primary_device(), None);
    assert_eq!(ContextId::of_handle(Handle::new(1, 4)), None);
}
