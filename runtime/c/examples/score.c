/* Scores a picture in the PGM or PPM format (P5, P6, 8 bits): score bottle.stpm part.ppm */
#include <stdio.h>
#include <stdlib.h>
#include <stpm.h>

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: score BUNDLE PICTURE\n"), 2;
    char kind = 0;
    int width = 0, height = 0;
    FILE *file = fopen(argv[2], "rb");
    if (!file || fscanf(file, "P%c %d %d 255", &kind, &width, &height) != 3 || fgetc(file) == EOF)
        return fprintf(stderr, "%s: not a PGM or PPM of 8 bits\n", argv[2]), 1;
    size_t size = (size_t)width * (size_t)height * (kind == '6' ? 3 : 1);
    uint8_t *pixels = malloc(size);
    if (!pixels || fread(pixels, 1, size, file) != size)
        return fprintf(stderr, "%s: is cut short\n", argv[2]), 1;
    fclose(file);

    stpm_detector *detector = NULL;
    stpm_image image = {pixels, height, width, 0, kind == '6' ? STPM_RGB : STPM_GREY};
    stpm_result result = {0};
    if (stpm_open(argv[1], NULL, &detector) != STPM_OK ||
        stpm_run(detector, &image, 1, &result) != STPM_OK)
        return fprintf(stderr, "%s\n", stpm_last_error(detector)), 1;
    printf("%s %g, threshold %g, %zu regions\n", result.is_anomalous ? "ANOMALOUS" : "ok",
           result.score, result.threshold, result.region_count);
    stpm_close(detector);
    free(pixels);
    return 0;
}
