# The environment of requirements.txt, without a screen: docker build -t small-object .
FROM python:3.11-slim

WORKDIR /small-object
COPY . .
# Ultralytics asks for opencv-python, which needs libraries of a desktop; the headless build has the same modules.
RUN pip install --no-cache-dir -r requirements.txt \
    && pip uninstall -y opencv-python \
    && pip install --no-cache-dir "opencv-python-headless==$(sed -n 's/^opencv-python==//p' requirements.txt)"

WORKDIR /work
CMD ["yolo", "checks"]
