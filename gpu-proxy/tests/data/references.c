/* Texture and surface references, beside driver.c: each call says what it was given. None at 0 is bound, as some driver may have it. */
#define GIVEN(...) do { printf("reference: " __VA_ARGS__); SAY("\n"); } while (0)
static int found;
static int find(const char *kind, void **reference, const char *name) {
    GIVEN("%s %s in %s", kind, name, named(current));
    *reference = (char *)0x500 + found++;
    return name[0] == 'n' ? 500 : 0;
}
int cuModuleGetTexRef(void **reference, void *module, const char *name) { return find("texture", reference, name); }
int cuModuleGetSurfRef(void **reference, void *module, const char *name) { return find("surface", reference, name); }
int cuTexRefCreate(void **reference) { return find("created", reference, "one"); }
int cuTexRefDestroy(void *reference) { GIVEN("%p ended in %s", reference, named(current)); return 0; }
int cuTexRefSetArray(void *reference, void *array, unsigned flags) { GIVEN("%p array %p %u", reference, array, flags); return 0; }
int cuTexRefSetMipmappedArray(void *reference, void *mipmap, unsigned flags) { GIVEN("%p levels %p %u", reference, mipmap, flags); return 0; }
int cuTexRefSetAddress_v2(size_t *offset, void *reference, u64 at, size_t bytes) {
    GIVEN("%p %zu at %llx, %s", reference, bytes, at, offset ? "told" : "not told");
    if (!at || (!offset && at % 64)) return 1;
    if (offset) *offset = at % 64;
    return 0;
}
struct rows { size_t width, height; unsigned format, channels; };
int cuTexRefSetAddress2D_v3(void *reference, const struct rows *rows, u64 at, size_t pitch) {
    GIVEN("%p rows %zu %zu format %u channels %u at %llx, %zu apart", reference, rows->width, rows->height, rows->format,
          rows->channels, at, pitch);
    return 0;
}
int cuTexRefSetFormat(void *reference, unsigned format, int channels) { GIVEN("%p format %u %d", reference, format, channels); return 0; }
int cuTexRefSetAddressMode(void *reference, int dimension, unsigned mode) { GIVEN("%p mode %d %u", reference, dimension, mode); return 0; }
int cuTexRefSetFilterMode(void *reference, unsigned mode) { GIVEN("%p filter %u", reference, mode); return 0; }
int cuTexRefSetMipmapFilterMode(void *reference, unsigned mode) { GIVEN("%p between levels %u", reference, mode); return 0; }
int cuTexRefSetMipmapLevelBias(void *reference, float bias) { GIVEN("%p bias %g", reference, bias); return 0; }
int cuTexRefSetMipmapLevelClamp(void *reference, float least, float most) { GIVEN("%p levels %g to %g", reference, least, most); return 0; }
int cuTexRefSetMaxAnisotropy(void *reference, unsigned ratio) { GIVEN("%p anisotropy %u", reference, ratio); return 0; }
int cuTexRefSetBorderColor(void *reference, const float *c) { GIVEN("%p border %g %g %g %g", reference, c[0], c[1], c[2], c[3]); return 0; }
int cuTexRefSetFlags(void *reference, unsigned flags) { GIVEN("%p flags %u", reference, flags); return 0; }
int cuSurfRefSetArray(void *reference, void *array, unsigned flags) { GIVEN("%p surface of %p %u", reference, array, flags); return 0; }
